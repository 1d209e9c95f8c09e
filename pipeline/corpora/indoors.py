"""Furnished rooms, seen from inside."""

from collections.abc import Sequence

import numpy as np

from fourmill.pipeline.corpora import surfaces
from fourmill.pipeline.corpora.furnishing import put_on_surfaces, put_somewhere
from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.room import Room
from fourmill.pipeline.corpora.scenes import Camera, Light, Scene, Vector, towards, vector
from fourmill.pipeline.corpora.shell import outside, put_openings, shell

KINDS = {
    "living room": ("Living room", "Lights", "Living room", "Miscellaneous", "Characters"),
    "kitchen": ("Kitchen", "Kitchen", "Kitchen", "Lights", "Characters"),
    "bedroom": ("Bedroom", "Bedroom", "Living room", "Lights", "Characters"),
    "bathroom": ("Bathroom", "Bathroom", "Bathroom", "Lights", "Miscellaneous"),
    "office": ("Office", "Office", "Office", "Lights", "Characters", "Miscellaneous"),
    "room": ("Living room", "Miscellaneous", "Bedroom", "Office", "Kitchen", "Characters"),
}
"""Kinds of room, and the categories whose models furnish them (repeated: more likely)."""


def furnish(rng: np.random.Generator, models: Sequence[Model], *, close: bool) -> Scene | None:
    """A furnished room seen from inside, or `None` where no place for a camera was found.

    Args:
        close: look at small things on a table or shelf from nearby.
    """
    kind = str(rng.choice(list(KINDS)))
    size = (rng.uniform(2.4, 7.0), rng.uniform(2.3, 3.3), rng.uniform(2.4, 7.0))
    room = Room(rng, size)
    put_openings(room, models)
    pool = [each for name in KINDS[kind] for each in models if each.category == name]
    budget = int(rng.integers(10, 34)) if not close else int(rng.integers(6, 14))
    for _ in range(budget):
        put_somewhere(room, pool[int(rng.integers(len(pool)))], pool)
    put_on_surfaces(room, pool, models, int(rng.integers(0, 10)) + 12 * close)
    surroundings = [*shell(room), *(outside(room) if room.holes else [])]
    light = _light(room)
    camera = _close_camera(room) if close else _camera(room)
    if camera is None:
        return None
    return Scene(
        [*surroundings, *room.things], camera, light, vector(0, size[1] / 3, 0),
        surfaces.sky(rng), kind,
    )  # fmt: skip


def _light(room: Room) -> Light:
    """The sun through a window, or a lamp under the ceiling."""
    rng, (width, height, depth) = room.rng, room.size
    tint = np.array([1.0, rng.uniform(0.78, 1.0), rng.uniform(0.55, 1.05)])
    exposure = rng.uniform(0.8, 1.8)
    if room.holes and rng.uniform() < 0.45:
        side = sorted(room.holes)[0]
        outwards = room.at_wall(side, rng.uniform(-3, 3), -8.0)
        direction = outwards + vector(0, rng.uniform(3, 9), 0)
        ambient = np.array([0.85, 0.95, 1.1]) * rng.uniform(0.35, 0.8)
        return Light(
            direction / np.linalg.norm(direction) * 30, tint * rng.uniform(1.5, 4),
            np.full(3, rng.uniform(0, 0.3)), ambient, max(width, depth) + 1, exposure,
        )  # fmt: skip
    x, z = rng.uniform(-0.35, 0.35, 2)
    position = vector(x * width, height - 0.12, z * depth)
    return Light(
        position, tint * rng.uniform(1.0, 3.2), np.full(3, rng.uniform(0, 0.2)),
        tint[::-1] * rng.uniform(0.08, 0.4), exposure=exposure,
    )  # fmt: skip


def _is_clear(room: Room, eye: Vector) -> bool:
    width, height, depth = room.size
    inside = abs(eye[0]) < width / 2 - 0.12 and abs(eye[2]) < depth / 2 - 0.12
    inside = inside and 0.15 < eye[1] < height - 0.1
    return bool(inside and room.is_free(eye, eye, gap=0.18))


def _camera(room: Room) -> Camera | None:
    """A place where one could stand, looking at something."""
    rng, (width, height, depth) = room.rng, room.size
    for _ in range(30):
        x, z = rng.uniform(-0.5, 0.5, 2)
        eye = vector(x * width, rng.uniform(0.5, min(2.2, height - 0.2)), z * depth)
        if rng.uniform() < 0.6:
            eye[1] = rng.uniform(1.3, 1.75)
        if not _is_clear(room, eye) or not room.things:
            continue
        thing = room.things[int(rng.integers(len(room.things)))]
        target = thing.place[:3, 3] + vector(0, rng.uniform(0, 1.0), 0)
        target = 0.8 * target + 0.2 * rng.uniform(-1, 1, 3) * np.array(room.size) / 2
        flat = np.hypot(*(target - eye)[[0, 2]])
        if flat < 0.8 or abs(target[1] - eye[1]) > flat:
            continue
        return Camera(eye, target, rng.uniform(38, 80), rng.normal(0, 0.03))
    return None


def _close_camera(room: Room) -> Camera | None:
    """Near one of the small things, somewhat above it."""
    rng = room.rng
    small = [
        each for each in room.things
        if isinstance(each.mesh, Model) and max(each.mesh.size) < 0.6 and each.place[1, 3] > 0.3
    ]  # fmt: skip
    for _ in range(60 if small else 0):
        thing = small[int(rng.integers(len(small)))]
        assert isinstance(thing.mesh, Model)
        target = thing.place[:3, 3] + vector(0, thing.mesh.size[1] / 2, 0)
        turn, rise = rng.uniform(-np.pi, np.pi), rng.uniform(0.08, 1.0)
        away = towards(turn, rise)
        eye = target + away * rng.uniform(2.0, 5.0) * max(0.12, max(thing.mesh.size))
        if _is_clear(room, eye):
            aim = target + rng.normal(0, 0.06, 3)
            return Camera(eye, aim, rng.uniform(32, 60), rng.normal(0, 0.05))
    return None
