"""How far what a tokenizer gives back is from what it was given, by kind of modality.

All take values as a VQ network sees them (`values.to_tensor`): images, edges, normals and planes
from -1 to 1, depth standardised in each crop, ids of classes with 0 for what is unknown, features
as they are.

Shapes: B crops, C channels, S side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests import dense_agreement
from fourmill.manifests.modalities import Kind

LOWER_IS_BETTER = frozenset({
    "abs_error", "abs_rel", "l1", "mean_degrees", "mean_difference", "median_degrees", "rmse",
})  # fmt: skip
"""Metrics of these names, and of names that begin with `fid`, `lpips` or `rfid`, are errors."""

_WINDOW, _SIGMA = 11, 1.5  # of structural similarity, in pixels (Wang et al. 2004)
_STRENGTHS = tuple(step / 10 for step in range(1, 10))  # of the range, from which on edges are
_WITHIN_DEGREES = (11.25, 22.5, 30.0)


def is_error(metric: str) -> bool:
    """Whether less of it is better.

    >>> is_error("psnr"), is_error("abs_rel"), is_error("lpips_efficientnet_lite0")
    (False, True, True)
    """
    return metric in LOWER_IS_BETTER or metric.startswith(("fid", "lpips", "rfid"))


def measure(kind: Kind, decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    """The metrics of a kind that need nothing but both sides' values.

    Returns:
        - images: `psnr` in decibels and `ssim`, means over crops;
        - edges: `psnr`, `f1` of places that are edges, and `best_f1`, see `best_edge_f1`;
        - planes: `psnr`, whose peak is their range;
        - depth: `abs_error`, in deviations of the crop's depth;
        - normals: `mean_degrees` and `median_degrees` between vectors, and the shares
          `within_11_degrees`, `within_22_degrees` and `within_30_degrees`, where they are known;
        - classes: `accuracy`, the share of known pixels, and `mean_iou`, over classes that occur;
        - features and vectors: `cosine`, the mean over cells or vectors.

        What nothing is known of is NaN.
    """
    return _METRICS[kind](decoded, inputs)


def better_than(metric: str, ours: float, others: float) -> bool:
    """Whether a value of a metric is strictly the better one; NaN is better than nothing."""
    return ours < others if is_error(metric) else ours > others


def code_use(tokens: Int[Tensor, "*shape"], num_codes: int) -> dict[str, float]:
    """How a code book is used.

    Returns:
        `codes_used`, the share of the code book that occurs, and `perplexity`, the number of codes
        that would carry as much if they were used evenly.
    """
    counts = torch.bincount(tokens.flatten(), minlength=num_codes).double()
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * shares.log()).sum())
    return {"codes_used": len(shares) / num_codes, "perplexity": float(np.exp(entropy))}


def aligned_depth(
    decoded: Float[Tensor, "B 1 S S"], depth: Sequence[Float32[np.ndarray, "_S _S"]]
) -> dict[str, float]:
    """`delta1` and `abs_rel` against the labels' own depth, means over crops.

    Tokens hold depth without its scale, so the scale and shift that fit each crop best (least
    squares) are given to all that is compared. `delta1` is the share of pixels within a factor of
    1.25; `abs_rel` the mean of |difference| / depth. Depth of less than a hundredth of the crop's
    largest is left out: relative errors of it say nothing.
    """
    rows = [
        dense_agreement.depths(truth, each[0].numpy())
        for truth, each in zip(depth, decoded, strict=True)
    ]
    return {name: _nan_mean([row[name] for row in rows]) for name in ("delta1", "abs_rel")}


def plane_error(
    decoded: Float[Tensor, "B 1 S S"],
    inputs: Float[Tensor, "B 1 S S"],
    value_range: tuple[float, float],
) -> float:
    """The mean of |difference|, in the unit of the plane."""
    share = (decoded.clamp(-1, 1) - inputs).abs().mean() / 2
    return float(share) * (value_range[1] - value_range[0])


def psnr(decoded: Float[Tensor, "B C S S"], inputs: Float[Tensor, "B C S S"]) -> float:
    """Ratio of the peak to the error in decibels, at most 100; the mean over crops."""
    squares = (decoded.clamp(-1, 1) - inputs).square().mean(dim=(1, 2, 3)) / 4  # of 0..1
    return float(-10 * squares.clamp(min=1e-10).log10().mean())


def ssim(decoded: Float[Tensor, "B C S S"], inputs: Float[Tensor, "B C S S"]) -> float:
    """Structural similarity (Wang et al. 2004) by channel, with a Gaussian window of 11 pixels.

    Windows that reach over the border do not count; crops of less than a window are NaN.
    """
    if inputs.shape[-1] < _WINDOW:
        return float("nan")
    at = torch.arange(_WINDOW, dtype=torch.float32) - _WINDOW // 2
    weights = torch.exp(-at.square() / (2 * _SIGMA**2))
    weights /= weights.sum()

    def blurred(values: Tensor) -> Tensor:
        planes = values.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))

    ours, theirs = (0.5 * (each.clamp(-1, 1) + 1) for each in (decoded, inputs))
    mean, other = blurred(ours), blurred(theirs)
    variance = blurred(ours.square()) - mean.square()
    other_variance = blurred(theirs.square()) - other.square()
    covariance = blurred(ours * theirs) - mean * other
    first, second = 0.01**2, 0.03**2
    above = (2 * mean * other + first) * (2 * covariance + second)
    below = (mean.square() + other.square() + first) * (variance + other_variance + second)
    return float((above / below).mean())


def edge_f1(decoded: Float[Tensor, "B 1 S S"], inputs: Float[Tensor, "B 1 S S"]) -> float:
    """F1 of places that are edges (half of the range or more), the mean over crops.

    An edge within 0.75 % of the diagonal, a pixel of 112, is the same edge.
    """
    pairs = zip(*(_bytes(each) for each in (inputs, decoded)), strict=True)
    return _nan_mean([dense_agreement.edges(*pair)["f1"] for pair in pairs])


def best_edge_f1(decoded: Float[Tensor, "B 1 S S"], inputs: Float[Tensor, "B 1 S S"]) -> float:
    """F1 with the strength from which on a decoded place is an edge that suits all crops best.

    What edge detectors are judged by (the optimal data-set scale of Martin et al. 2004): where a
    decoder is unsure it says grey, and half of the range is not the place to cut that.
    """
    cuts = (torch.where(decoded >= 2 * each - 1, 1.0, -1.0) for each in _STRENGTHS)
    return max(edge_f1(each, inputs) for each in cuts)


def degrees(
    decoded: Float[Tensor, "B 3 S S"], inputs: Float[Tensor, "B 3 S S"]
) -> Float[Tensor, " pixels"]:
    """Angles between vectors where the input's is known; 90 where nothing was decoded."""
    is_known = inputs.norm(dim=1) > 0.5
    cosines = F.cosine_similarity(decoded, inputs, dim=1)[is_known]
    return cosines.clamp(-1, 1).acos().rad2deg()


def mean_iou(decoded: Int[Tensor, "*shape"], inputs: Int[Tensor, "*shape"]) -> float:
    """Intersection over union of known pixels of all crops together, over classes that occur."""
    is_known = inputs > 0
    if not is_known.any():
        return float("nan")
    ours, theirs = decoded[is_known], inputs[is_known]
    count = int(max(ours.max(), theirs.max())) + 1
    table = torch.bincount(theirs * count + ours, minlength=count**2).view(count, count).double()
    hits, occurs = table.diagonal(), table.sum(1) > 0
    union = table.sum(0) + table.sum(1) - hits
    return float((hits[occurs] / union[occurs]).mean())


def _images(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    return {"psnr": psnr(decoded, inputs), "ssim": ssim(decoded, inputs)}


def _edges(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    return {
        "psnr": psnr(decoded, inputs),
        "f1": edge_f1(decoded, inputs),
        "best_f1": best_edge_f1(decoded, inputs),
    }


def _planes(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    return {"psnr": psnr(decoded, inputs)}


def _depth(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    return {"abs_error": float((decoded - inputs).abs().mean())}


def _normals(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    angles = degrees(decoded, inputs)
    nothing = float("nan")
    shares = {f"within_{int(most)}_degrees": angles < most for most in _WITHIN_DEGREES}
    return {
        "mean_degrees": float(angles.mean()) if len(angles) else nothing,
        "median_degrees": float(angles.median()) if len(angles) else nothing,
    } | {
        name: float(each.double().mean()) if len(angles) else nothing
        for name, each in shares.items()
    }


def _classes(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    hits = (decoded == inputs)[inputs > 0]
    return {
        "accuracy": float(hits.double().mean()) if len(hits) else float("nan"),
        "mean_iou": mean_iou(decoded, inputs),
    }


def _features(decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    return {"cosine": float(F.cosine_similarity(decoded, inputs, dim=1).mean())}


def _bytes(values: Tensor) -> list[NDArray[np.uint8]]:
    scaled = 127.5 * (values[:, 0].clamp(-1, 1) + 1)
    return list(scaled.round().to(torch.uint8).numpy())


def _nan_mean(values: Sequence[float]) -> float:
    """The mean of those that are known."""
    known: NDArray[Any] = np.asarray([each for each in values if not np.isnan(each)])
    return float(known.mean()) if len(known) else float("nan")


_METRICS: dict[Kind, Callable[[Tensor, Tensor], dict[str, float]]] = {
    Kind.IMAGE: _images,
    Kind.EDGE: _edges,
    Kind.PLANE: _planes,
    Kind.DEPTH: _depth,
    Kind.NORMAL: _normals,
    Kind.CLASSES: _classes,
    Kind.FEATURE_MAP: _features,
    Kind.VECTOR: _features,
}
