"""Numbers of a scene that 4M-21 has among its metadata, from other labels of the image.

The paper names them and says in a few words each what they are; the formulas are ours.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from fourmill.manifests.label_checks import UNKNOWN_CLASS

_SIDE = 256  # most pixels of a side that are looked at
_JUMP = 0.05  # of the range of depth, between neighbours: an edge that hides something

NUM_THINGS = 80
"""The first of `semseg_coco`'s classes can be counted, the others are stuff."""

_WALKABLE = (
    82, 87, 90, 96, 97, 100, 102, 105, 106, 122, 123, 125, 126, 132,
)  # fmt: skip
"""Of COCO's panoptic classes: bridge, wooden floor, gravel, platform, playing field, road, sand,
snow, stairs, other floor, pavement, grass, dirt, rug."""


def semantics(classes: UInt8[np.ndarray, "H W"]) -> dict[str, int | float]:
    """Shares of the known pixels that are things, and that can be walked on; number of classes."""
    counts = np.bincount(classes.ravel(), minlength=UNKNOWN_CLASS + 1)[:UNKNOWN_CLASS]
    known = max(int(counts.sum()), 1)
    return {
        "objectness": _share(counts[:NUM_THINGS].sum() / known),
        "walkability": _share(counts[list(_WALKABLE)].sum() / known),
        "semantic_diversity": int((counts > 0).sum()),
    }


def geometric_complexity(normals: UInt8[np.ndarray, "H W 3"]) -> float:
    """Angular variance of the normals: 0 for a single plane, 1 if no direction prevails."""
    vectors = _smaller(normals).astype(np.float64) / 127.5 - 1
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    is_known = lengths[..., 0] > 0.5
    if not is_known.any():
        return 0.0
    return _share(1 - np.linalg.norm((vectors / np.maximum(lengths, 0.5))[is_known].mean(axis=0)))


def occlusion_score(depth: Float32[np.ndarray, "H W"]) -> float:
    """Share of pixels beside which depth jumps by more than a twentieth of its range."""
    small = _smaller(depth).astype(np.float64)
    reach = _JUMP * max(float(np.ptp(small)), 1e-6)
    is_edge = np.zeros(small.shape, bool)
    is_edge[1:] |= np.abs(np.diff(small, axis=0)) > reach
    is_edge[:, 1:] |= np.abs(np.diff(small, axis=1)) > reach
    return _share(is_edge.mean())


def _smaller(plane: NDArray[Any]) -> NDArray[Any]:
    """Every so-many-th pixel, so that measures hardly depend on the resolution of the label."""
    step = -(-max(plane.shape[:2]) // _SIDE)
    return plane[::step, ::step]


def _share(value: Any) -> float:
    return round(float(value), 4) + 0.0
