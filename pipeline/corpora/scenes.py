"""What a rendered scene consists of: things, a camera and light."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.meshes import Mesh

FAR = 32.0
"""Metres: the sky's depth, and the most that 16 bits of half a millimetre can nearly hold."""

Vector = Float[np.ndarray, "3"]
Matrix = Float[np.ndarray, "4 4"]


def vector(x: float | int, y: float | int, z: float | int) -> Vector:
    """A point or a direction."""
    return np.array([x, y, z], np.float64)


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing in its place.

    Attributes:
        mesh: or the catalogue model whose mesh it is.
        place: from the mesh's coordinates to the world's.
        klass: index in `COARSE_CLASSES`.
        name: what a caption calls it; `""` for walls, ground and the like, which are no instances.
        gloss: strength of highlights, 0..1.
        credit: creator and licence.
    """

    mesh: Mesh | Model
    place: Matrix
    klass: int
    name: str = ""
    gloss: float = 0.0
    credit: str = ""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera; `fov` is vertical, in degrees; `roll` turns it around its axis, radians."""

    eye: Vector
    target: Vector
    fov: float
    roll: float = 0.0

    def view(self) -> Matrix:
        """From world coordinates to the camera's: x right, y up, z towards the viewer."""
        back = self.eye - self.target
        back = back / np.linalg.norm(back)
        right = np.cross([0.0, 1.0, 0.0], back)
        right = right / np.linalg.norm(right)
        up = np.cross(back, right)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([cos * right + sin * up, cos * up - sin * right, back])
        matrix[:3, 3] = -matrix[:3, :3] @ self.eye
        return matrix


@dataclass(frozen=True, eq=False)
class Light:
    """One main light that throws shadows, a second without, and light from all around.

    Attributes:
        position: of the main light, metres in the world; far away for the sun.
        reach: half the side of the square around the scene's middle that a sun's shadows cover, in
            metres; 0 for a lamp, whose light falls off and whose shadows fall from its position.
        colour, fill, ambient: RGB strengths of the main light, of the second (from behind the
            camera) and of all around.
        exposure: multiplies everything before the film's curve.
        haze: share of the light that is lost to the horizon's colour on each metre.
    """

    position: Vector
    colour: Vector
    fill: Vector
    ambient: Vector
    reach: float = 0.0
    exposure: float = 1.0
    haze: float = 0.0


@dataclass(frozen=True, eq=False)
class Scene:
    """All that the renderer needs.

    Attributes:
        middle: a point in the middle of what is to be lit.
        sky: panorama, see `surfaces.sky`.
        kind: what a caption calls the whole: `kitchen`.
    """

    things: Sequence[Thing]
    camera: Camera
    light: Light
    middle: Vector
    sky: UInt8[np.ndarray, "height width 3"]
    kind: str


def towards(azimuth: float, elevation: float) -> Vector:
    """The unit vector at that angle from +z around the vertical, and above the horizon."""
    flat = np.cos(elevation)
    return vector(np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat)


def place(position: Vector, turn: float = 0.0, scale: float = 1.0) -> Matrix:
    """The matrix that scales, turns by `turn` radians around the vertical, and moves."""
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    matrix[:3, 3] = position
    return matrix
