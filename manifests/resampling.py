"""Two maps of one picture, brought to the smaller of their resolutions."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def averaged(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both at the smaller resolution, by averaging; `[height, width]` or with channels behind."""
    height, width = _smaller(one, other)
    ours, theirs = (
        each if each.shape[:2] == (height, width)
        else cv2.resize(np.ascontiguousarray(each), (width, height), interpolation=cv2.INTER_AREA)
        for each in (one, other)
    )  # fmt: skip
    return np.asarray(ours), np.asarray(theirs)


def nearest(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both at the smaller resolution, by the nearest value; no values in between are made."""
    ours, theirs = (picked(each, *_smaller(one, other)) for each in (one, other))
    return ours, theirs


def picked(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """At another resolution, by the nearest value."""
    rows = ((np.arange(height) + 0.5) * plane.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * plane.shape[1] / width).astype(np.int64)
    return np.asarray(plane[rows[:, None], columns])


def _smaller(one: NDArray[Any], other: NDArray[Any]) -> tuple[int, int]:
    return min(one.shape[0], other.shape[0]), min(one.shape[1], other.shape[1])
