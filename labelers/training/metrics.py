"""Errors of depth, normals and classes against exact truth, as the literature reports them."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray

from fourmill.labelers.training.views import SKY_METRES, UNKNOWN_CLASS, UNKNOWN_NORMAL
from fourmill.manifests.modalities import COARSE_CLASSES

_CLASSES = len(COARSE_CLASSES)
_SKY = COARSE_CLASSES.index("sky")


@dataclass(frozen=True)
class Guess:
    """What something says of one image, all at the truth's resolution.

    Attributes:
        disparity: inverse depth up to scale and shift.
        normals: unit vectors.
        classes: indices of `COARSE_CLASSES`.
    """

    disparity: Float32[np.ndarray, "H W"]
    normals: Float32[np.ndarray, "H W 3"]
    classes: UInt8[np.ndarray, "H W"]


@dataclass(frozen=True)
class Truth:
    """What is so, as in `views.View`."""

    depth: Float32[np.ndarray, "H W"]
    normals: UInt8[np.ndarray, "H W 3"]
    classes: UInt8[np.ndarray, "H W"]


@dataclass(frozen=True)
class Errors:
    """Over all images; the sky has no depth and no normal, and counts for classes alone.

    Attributes:
        abs_rel: mean of |error| / depth, after scale and shift of the disparity (least squares).
        delta1: share of pixels whose depth is within a factor of 1.25, after the same.
        normal_median_degrees, normal_mean_degrees: of the angle to the true normal.
        normal_within_30: share of pixels whose normal is less than 30 degrees off.
        mean_iou: intersection over union, mean over the classes that occur.
    """

    images: int
    abs_rel: float
    delta1: float
    normal_median_degrees: float
    normal_mean_degrees: float
    normal_within_30: float
    mean_iou: float

    def as_dict(self) -> dict[str, float]:
        """By name, rounded to four digits behind the point; without what no image tells."""
        numbers = {name: round(float(value), 4) for name, value in asdict(self).items()}
        return {name: value for name, value in numbers.items() if not math.isnan(value)}


def errors(pairs: Iterable[tuple[Guess, Truth]]) -> Errors:
    """Errors of guesses, each beside its truth; what is unknown in all images is NaN."""
    relative, within, angles = [], [], []
    confusion = np.zeros((_CLASSES, _CLASSES), np.int64)
    images = 0
    for guess, truth in pairs:
        images += 1
        solid = truth.classes != _SKY
        measured = solid & (truth.depth > 0) & (truth.depth < SKY_METRES)
        if measured.sum() > 100:
            ratio = _aligned(guess, truth, measured)
            relative.append(np.abs(ratio - 1).mean())
            within.append((np.maximum(ratio, 1 / ratio) < 1.25).mean())
        known = solid & (truth.normals != UNKNOWN_NORMAL).any(axis=-1)
        angles.append(_angles(guess.normals[known], truth.normals[known]))
        labelled = truth.classes != UNKNOWN_CLASS
        confusion += np.bincount(
            truth.classes[labelled].astype(np.int64) * _CLASSES + guess.classes[labelled],
            minlength=_CLASSES**2,
        ).reshape(_CLASSES, _CLASSES)
    every = np.concatenate(angles) if angles else np.zeros(0, np.float32)
    return Errors(
        images=images,
        abs_rel=_mean(relative),
        delta1=_mean(within),
        normal_median_degrees=float(np.median(every)) if every.size else float("nan"),
        normal_mean_degrees=_mean(every),
        normal_within_30=_mean(every < 30),
        mean_iou=_mean_iou(confusion),
    )


def _aligned(
    guess: Guess, truth: Truth, measured: Bool[np.ndarray, "H W"]
) -> Float32[np.ndarray, " pixels"]:
    """Guessed over true depth, with the scale and shift of the disparity that fit best."""
    depth = truth.depth[measured].astype(np.float64)
    guessed = guess.disparity[measured].astype(np.float64)
    columns = np.stack([guessed, np.ones_like(guessed)], axis=1)
    scale_shift, *_ = np.linalg.lstsq(columns, 1 / depth, rcond=None)
    disparity = np.maximum(columns @ scale_shift, 1 / SKY_METRES)
    ratio: NDArray[Any] = (1 / (disparity * depth)).astype(np.float32)
    return ratio


def _angles(
    guessed: Float32[np.ndarray, "pixels 3"], true: UInt8[np.ndarray, "pixels 3"]
) -> Float32[np.ndarray, " pixels"]:
    """Degrees."""
    vectors = true.astype(np.float32) / 127.5 - 1
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    degrees: NDArray[Any] = np.degrees(np.arccos(np.clip((guessed * vectors).sum(axis=1), -1, 1)))
    return degrees.astype(np.float32)


def _mean_iou(confusion: NDArray[Any]) -> float:
    hits = confusion.diagonal()
    occurs = confusion.sum(axis=1) > 0
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return _mean(hits[occurs] / union[occurs])


def _mean(values: NDArray[Any] | list[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
