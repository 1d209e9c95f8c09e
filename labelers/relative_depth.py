"""Relative depth as all experts give it, so that one may stand for another."""

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray


def relative_depth(disparity: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """0 for the nearest to 1 for the farthest: one minus the disparity, stretched over the image.

    Args:
        disparity: inverse depth up to scale and shift, larger is nearer.
    """
    # not the extremes: a few odd pixels would squeeze all others together
    far, near = np.percentile(disparity, (0.5, 99.5))
    depth = (near - disparity) / max(float(near - far), 1e-6)
    result: NDArray[np.float32] = np.clip(depth, 0, 1).astype(np.float32)
    return result
