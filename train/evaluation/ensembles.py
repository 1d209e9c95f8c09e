"""Several samples of one prediction, as one: means, votes, the text that most agrees with the rest.

After 4M-21 (Bachmann et al. 2024), whose figures of normals and classes are of ten samples. Texts
are chosen as in minimum Bayes risk decoding (Kumar and Byrne 2004): what a model draws may be odd,
what it draws again and again it means.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fourmill.manifests.labels import Label
from fourmill.manifests.listed_agreement import texts
from fourmill.manifests.modalities import Kind

_MEANS = frozenset({Kind.DEPTH, Kind.PLANE, Kind.FEATURE_MAP, Kind.VECTOR, Kind.EDGE})
_LEAST_LENGTH = 0.05  # of a mean of unit vectors, below which they cancel out


def is_combined(kind: Kind) -> bool:
    """Whether several samples of it become one that is better; of others the first is taken."""
    return kind in _MEANS or kind in (Kind.NORMAL, Kind.CLASSES, Kind.TEXT)


def combine(kind: Kind, samples: Sequence[Label]) -> Label:
    """One label of several of the same sample.

    Depth, planes, edges and features are averaged; normals too, and made unit vectors again;
    classes are voted for, and among equals the lowest number wins; see `most_agreed` for texts. Of
    boxes, pictures and structures the first sample is taken.
    """
    if len(samples) == 1 or not is_combined(kind):
        return samples[0]
    if kind is Kind.TEXT:
        return most_agreed([str(each) for each in samples])
    stack: NDArray[np.generic] = np.stack([np.asarray(each) for each in samples])
    if kind is Kind.CLASSES:
        return most_frequent(stack.astype(np.uint8))
    if kind is Kind.NORMAL:
        return as_normals((stack.astype(np.float64) / 127.5 - 1).mean(axis=0))
    mean = stack.astype(np.float64).mean(axis=0)
    return as_type(mean, stack.dtype)


def most_agreed(samples: Sequence[str]) -> str:
    """The text that shares most words (F1) with the others; among equals the first.

    >>> most_agreed(["a red fish", "stairs", "a fish", "a dog"])
    'a fish'
    """
    return max(samples, key=lambda one: sum(texts(one, each)["word_overlap"] for each in samples))


def most_frequent(
    stack: UInt8[np.ndarray, "samples height width"],
) -> UInt8[np.ndarray, "height width"]:
    """The class that most samples have at each place; among equals the lowest number."""
    best = np.full(stack.shape[1:], 255, np.uint8)
    votes = np.zeros(stack.shape[1:], np.int64)
    for each in np.unique(stack):
        count = (stack == each).sum(axis=0)
        is_more = count > votes
        best[is_more], votes[is_more] = each, count[is_more]
    return best


def as_normals(vectors: NDArray[np.float64]) -> UInt8[np.ndarray, "height width 3"]:
    """Stored normals of vectors of any length; unknown where there is next to none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.where(length > _LEAST_LENGTH, vectors / np.maximum(length, _LEAST_LENGTH), 0)
    return np.rint(127.5 * (unit + 1)).astype(np.uint8)


def as_type(mean: NDArray[np.float64], dtype: "np.dtype[np.generic]") -> NDArray[np.generic]:
    """Rounded where the type has integers alone."""
    return np.rint(mean).astype(dtype) if dtype.kind in "ui" else mean.astype(dtype)
