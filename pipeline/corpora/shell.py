"""A room's shell: floor, ceiling, walls with openings, windows and doors, pictures, the outside."""

from collections.abc import Callable, Sequence

import numpy as np

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora import surfaces
from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.meshes import Mesh, quads, terrain
from fourmill.pipeline.corpora.room import TURNS, Room
from fourmill.pipeline.corpora.scenes import Thing, place, vector

_WALL, _FLOOR, _CEILING, _DECORATION, _GROUND = (
    COARSE_CLASSES.index(each) for each in ("wall", "floor", "ceiling", "decoration", "ground")
)
_FLOORS: Sequence[Callable[[np.random.Generator], surfaces.Texture]] = (
    surfaces.planks, surfaces.tiles, surfaces.carpet, surfaces.plaster,
)  # fmt: skip
_WALLS: Sequence[Callable[[np.random.Generator], surfaces.Texture]] = (
    surfaces.plaster, surfaces.plaster, surfaces.wallpaper, surfaces.bricks, surfaces.tiles,
)  # fmt: skip


def put_openings(room: Room, models: Sequence[Model]) -> None:
    """Doors and windows in some of the walls; what one can see through gets a hole."""
    rng = room.rng
    doors = [each for each in models if each.category == "Doors and windows"]
    doors = [each for each in doors if each.size[1] + each.elevation < room.size[1] - 0.05]
    for side in range(4):
        length = room.length(side)
        fitting = [each for each in doors if each.size[0] < length - 0.3]
        if rng.uniform() > 0.55 or not fitting:
            continue
        model = fitting[int(rng.integers(len(fitting)))]
        along = rng.uniform(-1, 1) * (length - model.size[0] - 0.1) / 2
        at = room.at_wall(side, along, -0.02, model.elevation)
        if room.put(model, at, TURNS[side]) and any(
            word in model.spoken for word in ("window", "glass", "panes")
        ):
            room.holes[side] = (along, model.elevation, model.size[0] * 0.98, model.size[1])


def shell(room: Room) -> list[Thing]:
    """Floor, ceiling and walls; walls with openings are made of the four pieces around them."""
    rng, (width, height, depth) = room.rng, room.size
    x, z = width / 2, depth / 2
    floor = _FLOORS[int(rng.integers(len(_FLOORS)))](rng)
    wall = _WALLS[int(rng.integers(len(_WALLS)))](rng)
    other = _WALLS[int(rng.integers(len(_WALLS)))](rng) if rng.uniform() < 0.3 else wall
    tile = rng.uniform(1.0, 3.0)
    gloss = 0.3 * rng.uniform() ** 2
    below = np.array([[(-x, 0, z), (x, 0, z), (x, 0, -z), (-x, 0, -z)]])
    above = below[:, ::-1] + vector(0, height, 0)
    things = [
        Thing(quads(below, floor, tile), np.eye(4), _FLOOR, gloss=gloss),
        Thing(quads(above, surfaces.plaster(rng), 2.0), np.eye(4), _CEILING),
    ]
    for side in range(4):
        corners = np.array([
            [room.at_wall(side, u, 0.0, v) for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
            for u0, v0, u1, v1 in _around(room.length(side), height, room.holes.get(side))
        ])  # fmt: skip
        mesh = quads(corners, other if side == 0 else wall, tile)
        things.append(Thing(mesh, np.eye(4), _WALL))
        if side not in room.holes and rng.uniform() < 0.45:
            things += _pictures(room, side)
    return things


def _around(
    length: float, height: float, hole: tuple[float, float, float, float] | None
) -> list[tuple[float, float, float, float]]:
    """Rectangles (u0, v0, u1, v1) that cover a wall but for its opening."""
    half = length / 2
    if hole is None:
        return [(-half, 0.0, half, height)]
    along, bottom, width, tall = hole
    left, right, top = along - width / 2, along + width / 2, bottom + tall
    pieces = [
        (-half, 0.0, left, height), (right, 0.0, half, height),
        (left, 0.0, right, bottom), (left, top, right, height),
    ]  # fmt: skip
    return [each for each in pieces if each[2] - each[0] > 1e-3 and each[3] - each[1] > 1e-3]


def _pictures(room: Room, side: int) -> list[Thing]:
    """Paintings in frames on a wall, where nothing stands before it."""
    rng = room.rng
    length = room.length(side)
    things = []
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.uniform(0.25, 1.1), rng.uniform(0.25, 0.9)
        if length < w + 0.4:
            continue
        along = rng.uniform(-1, 1) * (length - w - 0.2) / 2
        centre = room.at_wall(side, along, 0.02, rng.uniform(1.3, 1.8))
        right = np.abs(room.at_wall(side, 1.0, 0.0) - room.at_wall(side, 0.0, 0.0))
        reach = right * w / 2 + vector(0, h / 2, 0) + 0.03 * (1 - right)
        if not room.is_free(centre - reach, centre + reach):
            continue
        room.taken.append(np.concatenate([centre - reach, centre + reach]))
        things.append(Thing(_framed(rng, w, h), place(centre, TURNS[side]), _DECORATION, "picture"))
    return things


def _framed(rng: np.random.Generator, width: float, height: float) -> Mesh:
    canvas = surfaces.picture(rng)
    edge = int(rng.integers(0, 12))
    paint = (surfaces.colour(rng, (0.05, 0.95), 0.3) * 255).astype(np.uint8)
    if edge:
        canvas[:edge] = canvas[-edge:] = paint
        canvas[:, :edge] = canvas[:, -edge:] = paint
    x, y = width / 2, height / 2
    return quads(np.array([[(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)]]), canvas)


def outside(room: Room) -> list[Thing]:
    """Ground, seen through windows, on the same level or some storeys below."""
    rng = room.rng
    level = -0.15 if rng.uniform() < 0.6 else -rng.uniform(3, 12)
    ground = terrain(np.full((2, 2), level), 200.0, surfaces.soil(rng), rng.uniform(2, 6))
    return [Thing(ground, np.eye(4), _GROUND)]
