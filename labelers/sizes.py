"""Images at the size that an expert works at."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray


def shrunk(rgb: UInt8[np.ndarray, "H W 3"], area: int) -> UInt8[np.ndarray, "h w 3"]:
    """The whole image in its own aspect, with at most about `area` pixels; never enlarged."""
    height, width = rgb.shape[:2]
    scale = min(1.0, (area / (height * width)) ** 0.5)
    return resized(rgb, max(1, round(height * scale)), max(1, round(width * scale)))


def resized(rgb: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image at another size, without aliasing when it shrinks."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = rgb.shape[0] * rgb.shape[1] > height * width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    # OpenCV refuses arrays that are not contiguous or not writable in some versions
    image: NDArray[Any] = cv2.resize(
        np.ascontiguousarray(rgb), (width, height), interpolation=method
    )
    return image


def stretched(rgb: UInt8[np.ndarray, "H W 3"], aspect: float = 8) -> UInt8[np.ndarray, "h w 3"]:
    """The image itself, or a strip with its short side stretched until networks can read it.

    Args:
        aspect: the most that one side may be of the other; each side gets at least 16 pixels.
    """
    height, width = rgb.shape[:2]
    least = max(16, round(max(height, width) / aspect))
    return resized(rgb, max(height, least), max(width, least))
