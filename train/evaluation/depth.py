"""Errors of depth, after as much alignment as a protocol allows.

A model that predicts depth without its scale is judged after the scale and shift that fit each
picture best (least squares, in depth; as for affine-invariant depth since MiDaS, Ranftl et al.
2020), after the scale alone, or as it is.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourmill.manifests import dense_agreement as dense
from fourmill.manifests.labels import Label
from fourmill.tokenize.values import standardise_depth
from fourmill.train.evaluation.metric import Means, Metric, Scores
from fourmill.train.evaluation.settings import Alignment

_DELTAS = (1.25, 1.25**2, 1.25**3)
_TINY = 1e-9


class DepthMetric(Metric):
    """Means over pictures of `abs_rel`, `rmse`, `delta1` to `delta3`, and `l1`.

    `l1` is the mean difference of depth that is standardised in each picture, both sides by
    themselves (mean and deviation without the nearest and farthest tenth); it needs no alignment.
    `rmse` has the truth's unit. Names of all alignments but the first end with `/scale`, `/none`.

    Args:
        alignments: that are reported.
        least: share of a picture's largest depth from which on depth counts. Depth of 0 never does:
            it means unknown. Relative depth, which begins near 0, needs some more.
    """

    headline = "abs_rel"

    def __init__(
        self, alignments: Sequence[Alignment] = ("scale_and_shift",), least: float = 0.0
    ) -> None:
        self._alignments = tuple(alignments)
        self._least = least
        self._means = Means()

    def add(self, truth: Label, predicted: Label) -> Scores:
        assert isinstance(truth, np.ndarray)
        assert isinstance(predicted, np.ndarray)
        known = (truth > 0) & (truth >= self._least * float(truth.max()))
        ours, theirs = (each[known].astype(np.float64) for each in (truth, predicted))
        scores: dict[str, float] = {}
        for number, alignment in enumerate(self._alignments):
            suffix = f"/{alignment}" if number else ""
            found = depth_errors(ours, align(ours, theirs, alignment))
            scores |= {name + suffix: value for name, value in found.items()}
        scores["l1"] = standardised_l1(ours, theirs) if ours.size else math.nan
        self._means.add(scores)
        return scores

    def totals(self) -> Scores:
        return self._means.result()


def align(
    truth: Float[np.ndarray, " places"],
    predicted: Float[np.ndarray, " places"],
    alignment: Alignment,
) -> Float[np.ndarray, " places"]:
    """Predicted depth in the truth's unit."""
    if alignment == "none" or not truth.size:
        return predicted
    if alignment == "scale":
        return np.asarray(predicted * (truth @ predicted / max(predicted @ predicted, _TINY)))
    return dense.fit(truth, predicted)


def depth_errors(
    truth: Float[np.ndarray, " places"], predicted: Float[np.ndarray, " places"]
) -> dict[str, float]:
    """`abs_rel`, the mean of |difference| / depth; `rmse`; and `delta1` to `delta3`, the shares
    within a factor of 1.25, its square and its cube. NaN of no places.

    Args:
        truth: above 0.
    """
    names = [f"delta{number}" for number in range(1, len(_DELTAS) + 1)]
    if not truth.size:
        return dict.fromkeys(("abs_rel", "rmse", *names), math.nan)
    difference = np.abs(predicted - truth)
    # what fell below 0 when it was fitted is beyond any factor
    positive = np.maximum(predicted, _TINY)
    factor = np.maximum(positive / truth, truth / positive)
    shares = {
        name: float((factor < most).mean()) for name, most in zip(names, _DELTAS, strict=True)
    }
    return {
        "abs_rel": float((difference / truth).mean()),
        "rmse": float(np.sqrt(np.square(difference).mean())),
        **shares,
    }


def standardised_l1(
    truth: Float[np.ndarray, " places"], predicted: Float[np.ndarray, " places"]
) -> float:
    """The mean difference of both, each standardised as tokenizers see depth."""
    ours, theirs = (standardise_depth(each[None, None]) for each in (truth, predicted))
    return float(np.abs(ours - theirs).mean())
