"""How well classes can be told from frozen features: a linear probe, and nearest neighbours."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from fourmill.manifests.errors import ConfigError
from fourmill.train.evaluation.knn import NEIGHBOURS, TEMPERATURE, knn_votes
from fourmill.train.transfer.classes import Classified, Samples
from fourmill.train.transfer.features import Features
from fourmill.train.transfer.intervals import bootstrap_interval

STRENGTHS = tuple(10.0**power for power in range(-4, 4))
"""Of the regularisation that are tried, as scikit-learn counts them: larger fits closer."""

_HELD = 5  # one sample in so many, of each class, chooses the strength
_STEPS = 1000


@dataclass(frozen=True)
class Accuracy:
    """The share of right answers, with the interval of 95 % of bootstraps."""

    top1: float
    low: float
    high: float
    top5: float
    balanced: float

    @staticmethod
    def of(scores: Float[np.ndarray, "M K"], classes: Int64[np.ndarray, " M"]) -> "Accuracy":
        """Of scores of the classes."""
        order = np.argsort(-scores, axis=1, kind="stable")
        right = order[:, 0] == classes
        low, high = bootstrap_interval(int(right.sum()), len(classes))
        per_class = [float(right[classes == each].mean()) for each in np.unique(classes)]
        return Accuracy(
            float(right.mean()), low, high,
            float((order[:, :5] == classes[:, None]).any(axis=1).mean()), float(np.mean(per_class)),
        )  # fmt: skip


@dataclass(frozen=True)
class Probed:
    """What was found on `val`.

    Attributes:
        strength: of the linear probe's regularisation, chosen on a part of `train`.
        chance: of guessing evenly.
        majority: of always saying the commonest class of `train`.
        untrained: the linear probe of the same encoder with fresh weights, where it was asked for.
    """

    classes: tuple[str, ...]
    train_samples: int
    val_samples: int
    linear: Accuracy
    strength: float
    neighbours: Accuracy
    chance: float
    majority: float
    untrained: Accuracy | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {
            "margin_over_chance": self.linear.top1 - self.chance,
            "margin_over_majority": self.linear.top1 - self.majority,
            "k": NEIGHBOURS,
            "temperature": TEMPERATURE,
        }


def probe(features: Mapping[str, Features], classified: Classified) -> Probed:
    """Learn classes of `train` from features, and judge on `val`.

    Features are standardised by `train`; the strength of the L2 regularisation is the one that does
    best on a fifth of `train`, and the probe is then made with all of it.

    Raises:
        ConfigError: no sample of a split has features, or fewer than two classes have.
    """
    count = len(classified.names)
    (x, y), (x_val, y_val) = (
        _aligned(features, split, samples)
        for split, samples in (("train", classified.train), ("val", classified.val))
    )
    if len(np.unique(y)) < 2:
        raise ConfigError("probe: pictures of fewer than two classes have features in `train`")
    mean, deviation = x.mean(0), x.std(0)
    deviation = np.where(deviation > 1e-6, deviation, 1)
    standard, standard_val = (((each - mean) / deviation).astype(np.float32) for each in (x, x_val))
    strength = _choose(standard, y, count)
    scores = _fit(standard, y, strength, count)(standard_val)
    return Probed(
        classified.names, len(y), len(y_val), Accuracy.of(scores, y_val), strength,
        Accuracy.of(knn_votes(x, y, x_val, count).numpy(), y_val), 1 / count,
        float((y_val == np.bincount(y, minlength=count).argmax()).mean()),
    )  # fmt: skip


def _aligned(
    features: Mapping[str, Features], split: str, samples: Samples
) -> tuple[Float32[np.ndarray, "N D"], Int64[np.ndarray, " N"]]:
    values, is_there = features[split].of(samples.keys)
    if not is_there.any():
        raise ConfigError(
            f"probe: none of the {len(samples)} samples of {split} with a class has features: are "
            f"they of this dataset?"
        )
    return values, samples.classes[is_there]


class _Fitted:
    """Scores of all classes, also of those that the probe has not seen."""

    def __init__(self, model: Any, count: int) -> None:
        self._model, self._count = model, count

    def __call__(self, x: Float32[np.ndarray, "M D"]) -> Float[np.ndarray, "M K"]:
        scores = np.full((len(x), self._count), -np.inf)
        scores[:, self._model.classes_] = self._model.predict_proba(x)
        return scores


def _fit(
    x: Float32[np.ndarray, "N D"], y: Int64[np.ndarray, " N"], strength: float, count: int
) -> _Fitted:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=_STEPS)
    with warnings.catch_warnings():
        # the loosest ones need not converge to be compared
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return _Fitted(model, count)


def _choose(x: Float32[np.ndarray, "N D"], y: Int64[np.ndarray, " N"], count: int) -> float:
    rng = np.random.default_rng(0)
    held = np.zeros(len(y), bool)
    for each in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == each))
        held[rows[: len(rows) // _HELD]] = True
    if not held.any() or len(np.unique(y[~held])) < 2:
        return 1.0  # too few to choose on
    found = {
        strength: (_fit(x[~held], y[~held], strength, count)(x[held]).argmax(1) == y[held]).mean()
        for strength in STRENGTHS
    }
    best = max(found.values())
    return min(strength for strength, share in found.items() if share == best)
