"""Feature maps of vision transformers: how many patches an image has, their vectors as a map."""

from typing import Any

import numpy as np
from jaxtyping import Float16

_LONGEST = 4  # of strips, in short sides: what is longer is squeezed


def patch_grid(height: int, width: int, shortest: int) -> tuple[int, int]:
    """Rows and columns of patches, in the image's aspect.

    The shorter side has as many as a square has that 4M's reference sees. So the centre crop of a
    map is the map of the centre crop, but for what the network sees around it.

    >>> patch_grid(480, 640, 14), patch_grid(8, 8, 14), patch_grid(1, 2000, 14)
    ((14, 19), (14, 14), (14, 56))
    """
    scale = shortest / min(height, width)
    rows, columns = (min(round(side * scale), _LONGEST * shortest) for side in (height, width))
    return rows, columns


def feature_map(tokens: Any, rows: int, columns: int) -> Float16[np.ndarray, "C rows columns"]:
    """The vectors of patches `[rows * columns, C]`, a tensor, as a label."""
    limit = float(np.finfo(np.float16).max)
    found: np.ndarray = tokens.float().clamp(-limit, limit).half().cpu().numpy()
    return np.ascontiguousarray(found.T).reshape(-1, rows, columns)
