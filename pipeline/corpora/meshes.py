"""Triangles with textures: what the renderer draws, and the simple shapes that scenes are made of.

World coordinates are metres: x right, y up, z towards the viewer of an unrotated model, whose front
faces +z.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

VERTEX = np.dtype([
    ("position", "f4", 3),
    ("normal", "f4", 3),  # for shading; zero where the flat normal serves
    ("uv", "f4", 2),  # textures repeat; v up
    ("tint", "u1", 3),  # multiplies the texture
    ("layer", "u1"),  # of the mesh's textures
])  # fmt: skip
TEXTURE_SIDE = 128

Triangles = Int[np.ndarray, "triangles 3"]
Points = Float[np.ndarray, "vertices 3"]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Indexed triangles.

    Attributes:
        vertices: of dtype `VERTEX`.
        triangles: indices of vertices.
        textures: uint8 [layers, side, side, 4], RGBA, first row at the bottom (v = 0).
    """

    vertices: NDArray[Any]
    triangles: NDArray[np.uint32]
    textures: NDArray[np.uint8]

    @property
    def low(self) -> NDArray[np.float32]:
        """Lowest corner of the bounding box."""
        return np.asarray(self.vertices["position"].min(0))

    @property
    def high(self) -> NDArray[np.float32]:
        """Highest corner of the bounding box."""
        return np.asarray(self.vertices["position"].max(0))


def build_mesh(
    positions: Points,
    triangles: Triangles,
    uv: Float[np.ndarray, "vertices 2"],
    texture: UInt8[np.ndarray, "side side channels"],
    normals: Points | None = None,
) -> Mesh:
    """A mesh of one texture; without normals it is shaded flat."""
    vertices = np.zeros(len(positions), VERTEX)
    vertices["position"], vertices["uv"], vertices["tint"] = positions, uv, 255
    if normals is not None:
        vertices["normal"] = normals
    if texture.shape[-1] == 3:
        opaque = np.full((*texture.shape[:2], 1), 255, np.uint8)
        texture = np.concatenate([texture, opaque], axis=-1)
    return Mesh(vertices, triangles.astype(np.uint32), texture[None, ::-1])


def quads(
    corners: Float[np.ndarray, "pieces 4 3"],
    texture: UInt8[np.ndarray, "side side channels"],
    tile: float | None = None,
) -> Mesh:
    """Flat four-cornered pieces that share a texture.

    Args:
        corners: for each piece its four corners in order, the first at the texture's bottom left.
        tile: metres that the texture covers before it repeats, `None` to show it once a piece.
    """
    along, up = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64), (len(corners), 1, 1))
    if tile is not None:
        # measured from the world's origin, so that pieces of one wall fit together
        directions = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (along, up)]
        uv = np.stack([np.einsum("pci,pi->pc", corners, each) for each in directions], -1) / tile
    first = 4 * np.arange(len(corners))[:, None]
    triangles = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    return build_mesh(corners.reshape(-1, 3), triangles, uv.reshape(-1, 2), texture)


def box(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    texture: UInt8[np.ndarray, "side side channels"],
    tile: float,
) -> Mesh:
    """The sides and the top of a box."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    sides = np.array(
        [
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
            [(x1, y0, z0), (x0, y0, z0), (x0, y1, z0), (x1, y1, z0)],
            [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)],
            [(x1, y0, z1), (x1, y0, z0), (x1, y1, z0), (x1, y1, z1)],
            [(x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)],
        ],
        np.float64,
    )
    return quads(sides, texture, tile)


def terrain(
    heights: Float[np.ndarray, "rows columns"],
    extent: float,
    texture: UInt8[np.ndarray, "side side channels"],
    tile: float,
) -> Mesh:
    """A surface over the square from -extent to +extent, `heights[z, x]` in metres."""
    rows, columns = heights.shape
    z, x = np.meshgrid(
        np.linspace(-extent, extent, rows), np.linspace(-extent, extent, columns), indexing="ij"
    )
    points = np.stack([x, heights, z], -1)
    slope_z, slope_x = np.gradient(heights, 2 * extent / (rows - 1), 2 * extent / (columns - 1))
    normals = np.stack([-slope_x, np.ones_like(x), -slope_z], -1)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    triangles = np.concatenate([
        np.stack([a, c, b], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3),
    ])  # fmt: skip
    uv = np.stack([x, -z], -1).reshape(-1, 2) / tile
    return build_mesh(points.reshape(-1, 3), triangles, uv, texture, normals.reshape(-1, 3))
