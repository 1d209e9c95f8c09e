"""Agreement of labels that cover the picture, each at a resolution of its own.

Both are brought to the smaller resolution first: what is smooth by averaging; classes, normals and
features by the nearest place.
"""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int64, UInt8, UInt16
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.listed_agreement import IOU, matched, most_pairs
from fourmill.manifests.modalities import Modality
from fourmill.manifests.resampling import averaged, nearest

EDGE = 128  # from this strength on it counts as an edge
_REACH = 0.0075  # of the diagonal, within which edges count as the same
_FACTOR = 1.25
_NEAREST = 0.01  # of the largest depth: relative errors of less say nothing
_CLOSE = 0.05  # of the range of a plane
_RANKED_SIDE = 96  # places along a side that are ranked
_UNKNOWN_LENGTH = 0.5  # of a normal's vector: the zero vector means unknown
_BINS = 256


def depths(
    one: Float32[np.ndarray, "h w"], other: Float32[np.ndarray, "h2 w2"]
) -> dict[str, float]:
    """After the scale and shift of the other that fit best (least squares):

    `abs_rel`, the mean of |difference| / depth; `delta1`, the share within a factor of 1.25; and
    `rank_correlation`, -1 to 1, for which neither scale nor shift matter.
    """
    ours, theirs = (each.astype(np.float64) for each in averaged(one, other))
    solid = ours > max(_NEAREST * float(ours.max()), 0.0)
    depth, fitted = ours[solid], fit(ours, theirs)[solid]
    if depth.size:
        larger = np.maximum(depth, fitted) < _FACTOR * np.minimum(depth, fitted)
        abs_rel, delta1 = float((np.abs(fitted - depth) / depth).mean()), float(larger.mean())
    else:
        abs_rel = delta1 = float("nan")
    return {
        "rank_correlation": rank_correlation(_thinned(ours), _thinned(theirs)),
        "abs_rel": abs_rel,
        "delta1": delta1,
    }


def planes(
    one: Float32[np.ndarray, "h w"],
    other: Float32[np.ndarray, "h2 w2"],
    value_range: tuple[float, float],
) -> dict[str, float]:
    """`within_5_percent`, the share of places whose numbers differ by at most a twentieth of the
    range; `correlation`, place by place; and `abs_error`, the mean difference, in their unit."""
    ours, theirs = (each.astype(np.float64) for each in averaged(one, other))
    difference = np.abs(ours - theirs)
    return {
        "within_5_percent": _mean(difference <= _CLOSE * (value_range[1] - value_range[0])),
        "correlation": correlation(ours.ravel(), theirs.ravel()),
        "abs_error": _mean(difference),
    }


def normals(
    one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h2 w2 3"]
) -> dict[str, float]:
    """Degrees between the vectors, mean and median, and the share within 11.25 and 30 degrees."""
    everywhere = angles(one, other)
    degrees = everywhere[~np.isnan(everywhere)]
    return {
        "within_30_degrees": _mean(degrees < 30),
        "within_11_degrees": _mean(degrees < 11.25),
        "mean_degrees": _mean(degrees),
        "median_degrees": float(np.median(degrees)) if degrees.size else float("nan"),
    }


def angles(
    one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h2 w2 3"]
) -> Float[np.ndarray, "h3 w3"]:
    """Degrees between the vectors; NaN where either is unknown."""
    first, second = nearest(one, other)
    known = known_normals(first) & known_normals(second)
    ours, theirs = (each.astype(np.float64) / 127.5 - 1 for each in (first, second))
    lengths = [np.linalg.norm(each, axis=-1) for each in (ours, theirs)]
    cosine = (ours * theirs).sum(axis=-1) / np.where(known, lengths[0] * lengths[1], 1)
    return np.asarray(np.where(known, np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.nan))


def known_normals(normals: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where there is a vector: the zero vector means unknown."""
    lengths = np.linalg.norm(normals.astype(np.float64) / 127.5 - 1, axis=-1)
    return np.asarray(lengths > _UNKNOWN_LENGTH)


def edges(one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h2 w2"]) -> dict[str, float]:
    """`f1` of places that are edges (128 or more), where an edge within 0.75 % of the diagonal is
    the same; and `correlation` of the strengths, place by place."""
    sides = [(int(each.sum()), int(alone.sum())) for each, alone in edge_maps(one, other)]
    met = [1 - alone / edges if edges else 0.0 for edges, alone in sides]
    is_empty = not any(edges for edges, _ in sides)
    f1 = 2 * met[0] * met[1] / sum(met) if any(met) else float(is_empty)
    strengths = (each.astype(np.float64).ravel() for each in averaged(one, other))
    return {"f1": f1, "correlation": correlation(*strengths)}


def edge_maps(
    one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h2 w2"]
) -> list[tuple[Bool[np.ndarray, "h3 w3"], Bool[np.ndarray, "h3 w3"]]]:
    """For each side where its edges are, and where they are with none of the other's nearby."""
    ours, theirs = (each > 0 for each in averaged(*(_as_bytes(e >= EDGE) for e in (one, other))))
    reach = max(1, round(_REACH * float(np.hypot(*ours.shape))))
    near = np.ones((2 * reach + 1,) * 2, np.uint8)
    return [
        (edges, edges & (cv2.dilate(_as_bytes(others), near) == 0))
        for edges, others in ((ours, theirs), (theirs, ours))
    ]


def common_classes(
    before: Modality,
    one: UInt8[np.ndarray, "h w"],
    after: Modality,
    other: UInt8[np.ndarray, "h2 w2"],
) -> tuple[UInt8[np.ndarray, "h3 w3"], UInt8[np.ndarray, "h3 w3"]]:
    """Both in the first one's numbers: classes are the same if their names are.

    Classes of the other that the first one has no name for become one that it never gives.
    """
    ours, theirs = nearest(one, other)
    if not (before.classes and after.classes) or before.classes == after.classes:
        return ours, theirs
    table = np.full(256, UNKNOWN_CLASS, np.uint8)
    table[: len(after.classes)] = UNKNOWN_CLASS - 1
    for number, name in enumerate(after.classes):
        if name in before.classes:
            table[number] = before.classes.index(name)
    return ours, table[theirs]


def confusion(
    one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"]
) -> Int64[np.ndarray, "256 256"]:
    """Places by both classes; those that either side does not know are left out."""
    known = (one != UNKNOWN_CLASS) & (other != UNKNOWN_CLASS)
    pairs = one[known].astype(np.int64) * _BINS + other[known]
    return np.bincount(pairs, minlength=_BINS**2).reshape(_BINS, _BINS).astype(np.int64)


def classes(confusion: Int64[np.ndarray, "256 256"]) -> dict[str, float]:
    """`agreement`, the share of places with one class, and `mean_iou` over classes that occur."""
    shares, total = iou_by_class(confusion), int(confusion.sum())
    return {
        "agreement": int(confusion.diagonal().sum()) / total if total else float("nan"),
        "mean_iou": _mean(shares[~np.isnan(shares)]),
    }


def iou_by_class(confusion: Int64[np.ndarray, "256 256"]) -> Float[np.ndarray, "256"]:
    """Intersection over union of every class; NaN of those that neither side has."""
    hits = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def instances(
    one: UInt16[np.ndarray, "h w"], other: UInt16[np.ndarray, "h2 w2"]
) -> dict[str, float]:
    """`f1` of instances that are the same by an intersection over union of at least one half."""
    ours, theirs = nearest(one, other)
    numbers = [np.unique(each, return_inverse=True, return_counts=True) for each in (ours, theirs)]
    (names, rows, sizes), (other_names, columns, other_sizes) = numbers
    table = np.zeros((len(names), len(other_names)), np.int64)
    np.add.at(table, (rows.ravel(), columns.ravel()), 1)
    fits = table / (sizes[:, None] + other_sizes - table) >= IOU
    inside = fits[np.ix_(names > 0, other_names > 0)]
    return matched(np.array([most_pairs(inside.tolist()), *inside.shape], np.int64))


def features(
    one: Float[np.ndarray, "c h w"], other: Float[np.ndarray, "c2 h2 w2"]
) -> dict[str, float]:
    """`cosine` of the features at each place, on average.

    Raises:
        ConfigError: not as many channels.
    """
    return {"cosine": _mean(cosine_map(one, other))}


def cosine_map(
    one: Float[np.ndarray, "c h w"], other: Float[np.ndarray, "c2 h2 w2"]
) -> Float[np.ndarray, "h3 w3"]:
    """The cosine of the features at each place.

    Raises:
        ConfigError: not as many channels.
    """
    _refuse_other_channels(one, other)
    ours, theirs = nearest(*(np.moveaxis(e.astype(np.float64), 0, -1) for e in (one, other)))
    return _cosines(ours, theirs)


def vectors(one: Float32[np.ndarray, " c"], other: Float32[np.ndarray, " c2"]) -> dict[str, float]:
    """`cosine` of the two.

    Raises:
        ConfigError: not as many channels.
    """
    _refuse_other_channels(one, other)
    return {"cosine": _mean(_cosines(one.astype(np.float64), other.astype(np.float64)))}


def sequences(
    one: Float16[np.ndarray, "n c"], other: Float16[np.ndarray, "n2 c2"]
) -> dict[str, float]:
    """`cosine` of the vectors at the same place, on average; 0 where the shorter has none.

    Raises:
        ConfigError: not as many channels.
    """
    _refuse_other_channels(one.T, other.T)
    common = min(len(one), len(other))
    cosine = _cosines(one[:common].astype(np.float64), other[:common].astype(np.float64))
    return {"cosine": float(cosine.sum()) / max(len(one), len(other))}


def images(
    one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h2 w2 3"]
) -> dict[str, float]:
    """`equal_share` of values, and `mean_difference`, of 255."""
    ours, theirs = (each.astype(np.int64) for each in averaged(one, other))
    difference = np.abs(ours - theirs)
    return {"equal_share": _mean(difference == 0), "mean_difference": _mean(difference)}


def correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Pearson's, or NaN where either is constant."""
    ours, theirs = one - one.mean(), other - other.mean()
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(np.clip(ours @ theirs / lengths, -1, 1)) if lengths > 0 else float("nan")


def rank_correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Spearman's, or NaN where either is constant."""
    return correlation(_ranks(one), _ranks(other))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """From 0 up; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse.ravel()], np.float64)


def fit(
    one: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """The other one, scaled and shifted to be as near to the first as can be (least squares)."""
    scale, shift = scale_and_shift(one, other)
    return np.asarray(scale * other + shift)


def scale_and_shift(
    one: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]
) -> tuple[float, float]:
    """What `fit` does to the other one."""
    columns = np.stack([other.ravel(), np.ones(other.size)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, one.ravel(), rcond=None)
    return float(scale), float(shift)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = (-(-side // _RANKED_SIDE) for side in values.shape)
    return values[::rows, ::columns].ravel()


def _refuse_other_channels(one: NDArray[Any], other: NDArray[Any]) -> None:
    if len(one) != len(other):
        raise ConfigError(f"features of {len(one)} and {len(other)} channels cannot be compared")


def _cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(axis=-1) / np.where(lengths > 0, lengths, 1))


def _as_bytes(mask: NDArray[Any]) -> NDArray[np.uint8]:
    return np.where(mask, 255, 0).astype(np.uint8)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")
