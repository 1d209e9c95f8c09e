"""Boxes as labels of `det` and its kind."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

MOST_BOXES = 40
"""40 x 6 word pieces is what fits into the 256 of `det`."""


def boxes_label(
    corners: Float[np.ndarray, "n 4"], names: Sequence[str], scores: Iterable[float]
) -> dict[str, list[dict[str, Any]]]:
    """A label with the best boxes first; of equal scores, the ones that were named first.

    Args:
        corners: left, top, right, bottom in shares of the image's width and height; what is beyond
            the image is cut off.
        names: what each box shows; boxes without a name are left out.
        scores: 0 to 1.
    """
    inside = np.clip(np.asarray(corners, np.float64).reshape(-1, 4), 0, 1)
    found: list[dict[str, Any]] = [
        {"boxes": [round(float(each), 4) for each in box], "class_name": name, "score": score}
        for box, name, score in zip(inside, names, map(_rounded, scores), strict=True)
        if name and box[0] <= box[2] and box[1] <= box[3]
    ]
    return {"instances": sorted(found, key=lambda each: -each["score"])[:MOST_BOXES]}


def _rounded(score: float) -> float:
    return round(min(max(float(score), 0.0), 1.0), 4)
