"""Surface normals from depth, by an assumed camera: geometry, and no network."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_FIELD_OF_VIEW = 55.0  # degrees of the long side: a lens of 35 mm on full frame
_FARTHEST = 10.0  # in distances of the nearest place; relative depth leaves it open


class NormalsFromDepth(Labeler):
    """Unit vectors as `127.5 * (n + 1)` in the camera's frame: x right, y up, z to the viewer.

    As good as depth is, and as its assumptions are: relative depth says neither how far the
    farthest place is nor how wide the picture. Sharper than `normals`, and noisier; at outlines,
    where depth jumps, it is wrong.
    """

    spec = LabelerSpec(
        name="normals-from-depth",
        version=1,
        reads=("depth",),
        writes=("normal",),
        alternative=True,
        summary="surface normals from relative depth and an assumed field of view",
        licence="Apache-2.0",
        resources=Resources(memory_gib=0.3, batch_size=64),
    )

    def load(self, device: str) -> None:
        """Nothing to load."""

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"normal": _stored(sample["depth"])} for sample in batch]


def _stored(depth: Float32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    disparity = (1 - np.clip(depth, 0, 1)) * (1 - 1 / _FARTHEST) + 1 / _FARTHEST
    vectors = normals_of(1 / disparity.astype(np.float64), _FIELD_OF_VIEW)
    stored: UInt8[np.ndarray, "H W 3"] = np.rint(127.5 * (vectors + 1)).astype(np.uint8)
    return stored


def normals_of(
    distance: Float[np.ndarray, "H W"], field_of_view: float
) -> Float[np.ndarray, "H W 3"]:
    """Unit normals of the surface that a pinhole camera sees.

    Args:
        distance: from the camera's plane, along its axis; any unit.
        field_of_view: degrees of the longer side.
    """
    if min(distance.shape) < 2:  # a strip has no slope across
        return np.broadcast_to((0.0, 0.0, 1.0), (*distance.shape, 3))
    height, width = distance.shape
    focal = max(height, width) / 2 / np.tan(np.radians(field_of_view) / 2)
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = -(np.arange(height) + 0.5 - height / 2) / focal
    rays = np.stack([*np.meshgrid(x, y), np.full((height, width), -1.0)], axis=-1)
    down, right = np.gradient(rays * distance[..., None], axis=(0, 1))
    across = np.cross(down, right)
    normals: Float[np.ndarray, "H W 3"] = across / np.linalg.norm(across, axis=-1, keepdims=True)
    return normals


LABELER = NormalsFromDepth
