"""How a picture of any proportions lies in a square."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]

PAGE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Box:
    """Part of a picture in pixels, origin top left."""

    left: int
    top: int
    width: int
    height: int

    def inside(self, margin: int) -> "Box":
        """What is left of it without a margin."""
        return Box(
            self.left + margin,
            self.top + margin,
            max(1, self.width - 2 * margin),
            max(1, self.height - 2 * margin),
        )


def frame_of(picture: NDArray[Any], size: int) -> Box:
    """Where a picture lies in a square when it is fitted in, in the middle."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    wide, high = (max(1, round(each * size / longest)) for each in (width, height))
    return Box((size - wide) // 2, (size - high) // 2, wide, high)


def resized(picture: NDArray[Any], frame: Box, is_blocky: bool = False) -> NDArray[np.uint8]:
    """A uint8 picture in the size of a frame; what is blocky gets no colours in between."""
    shrinks = frame.width < picture.shape[1]
    smooth = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    method = cv2.INTER_NEAREST if is_blocky else smooth
    result = cv2.resize(picture, (frame.width, frame.height), interpolation=method)
    return np.asarray(result, np.uint8)


def placed(picture: NDArray[np.uint8], frame: Box, size: int) -> NDArray[np.uint8]:
    """The white square with the picture in its frame."""
    square = np.full((size, size, 3), PAGE, np.uint8)
    square[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width] = picture
    return square
