"""A room while it is furnished: what stands where, and whether something still fits."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.scenes import Thing, Vector, place, vector

TURNS = (0.0, np.pi / 2, np.pi, -np.pi / 2)
"""Of what stands at the walls -z, -x, +z and +x with its back to them."""

_HOLDS = frozenset(
    COARSE_CLASSES.index(each) for each in ("table", "storage", "appliance", "seat", "bed")
)


@dataclass
class Room:
    """A room while it is furnished; its floor is centred on the origin.

    Attributes:
        size: width (x), height (y) and depth (z), metres.
        taken: boxes (x0, y0, z0, x1, y1, z1) where something stands or hangs.
        holes: by wall, an opening (centre along the wall, bottom, width, height).
        surfaces: model and place of what things can be put on.
    """

    rng: np.random.Generator
    size: tuple[float, float, float]
    things: list[Thing] = field(default_factory=list)
    taken: list[Vector] = field(default_factory=list)
    holes: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    surfaces: list[tuple[Model, Vector, float]] = field(default_factory=list)

    def is_free(self, low: Vector, high: Vector, gap: float = 0.0) -> bool:
        """Whether a box meets nothing that is there."""
        return not any(
            np.all(low - gap < each[3:]) and np.all(high + gap > each[:3]) for each in self.taken
        )

    def put(self, model: Model, at: Vector, turn: float, *, solid: bool = True) -> bool:
        """Put a model with its bottom's middle at a point, if there is room; whether it was put."""
        half = half_size(model, turn)
        low = at - vector(half[0], -0.005, half[1])
        high = at + vector(half[0], model.size[1], half[1])
        width, height, depth = self.size
        inside = abs(low[0]) <= width / 2 + 0.2 and abs(high[0]) <= width / 2 + 0.2
        inside &= abs(low[2]) <= depth / 2 + 0.2 and abs(high[2]) <= depth / 2 + 0.2
        if not inside or high[1] > height or (solid and not self.is_free(low, high)):
            return False
        if solid:
            self.taken.append(np.concatenate([low, high]))
        gloss = 0.25 * self.rng.uniform() ** 2
        credit = f"{model.name}: {model.creator} ({model.licence})"
        self.things.append(
            Thing(model, place(at, turn), model.klass, model.spoken, gloss, credit=credit)
        )
        if (
            model.klass in _HOLDS
            and model.surface > 0.2
            and min(model.size[0], model.size[2]) > 0.25
        ):
            self.surfaces.append((model, at, turn))
        return True

    def at_wall(self, side: int, along: float, distance: float, height: float = 0.0) -> Vector:
        """The point at that distance from a wall."""
        width, _, depth = self.size
        if side % 2 == 0:
            sign = 1 if side == 0 else -1
            return vector(along, height, (distance - depth / 2) * sign)
        return vector((distance - width / 2) * (1 if side == 1 else -1), height, along)

    def length(self, side: int) -> float:
        """Of a wall, in metres."""
        return self.size[0] if side % 2 == 0 else self.size[2]


def half_size(model: Model, turn: float) -> Float[np.ndarray, "2"]:
    """Half the width and half the depth of the box around a turned model."""
    cos, sin = abs(np.cos(turn)), abs(np.sin(turn))
    width, _, depth = model.size
    return np.array([width * cos + depth * sin, width * sin + depth * cos]) / 2
