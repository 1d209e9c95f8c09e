"""Furniture in plausible places: backs to walls, lamps under ceilings, chairs around tables."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.room import TURNS, Room, half_size
from fourmill.pipeline.corpora.scenes import place, vector

_BY_THE_WALL = frozenset(
    COARSE_CLASSES.index(each) for each in ("storage", "bed", "appliance", "door or window")
)
_TABLE, _SEAT = COARSE_CLASSES.index("table"), COARSE_CLASSES.index("seat")


def put_somewhere(room: Room, model: Model, pool: Sequence[Model]) -> None:
    """A try to put the model where such things are; small ones are left for `put_on_surfaces`."""
    rng, (width, height, depth) = room.rng, room.size
    for _ in range(8):
        free = vector(rng.uniform(-0.5, 0.5) * width, 0.0, rng.uniform(-0.5, 0.5) * depth)
        turn = float(rng.uniform(-np.pi, np.pi))
        if max(model.size) < 0.35:
            return  # small things stand on others
        if model.size[1] < 0.05:  # rugs
            if room.put(model, free * 0.7, TURNS[int(rng.integers(4))], solid=False):
                return
        elif _hangs_from_ceiling(model):
            free[1] = height - model.size[1] - 0.01
            if room.put(model, free * vector(0.6, 1, 0.6), turn):
                return
        elif model.elevation > 0.25 or model.klass in _BY_THE_WALL or model.size[0] > 1.4:
            side = int(rng.integers(4))
            along = rng.uniform(-1, 1) * max(room.length(side) - model.size[0], 0) / 2
            at = room.at_wall(side, along, model.size[2] / 2 + 0.02, model.elevation)
            if room.put(model, at, TURNS[side]):
                return
        elif room.put(model, free * 0.9, TURNS[int(rng.integers(4))] if turn > 0 else turn):
            if model.klass == _TABLE and model.size[1] > 0.6:
                _put_seats(room, model, pool)
            return


def _hangs_from_ceiling(model: Model) -> bool:
    words = ("ceiling", "hanging light", "pendant", "chandelier", "fluorescent", "smoke")
    return any(each in model.spoken for each in words) or model.elevation > 2.0


def _put_seats(room: Room, table: Model, pool: Sequence[Model]) -> None:
    """Chairs around the table that was put last, facing it."""
    rng, placed = room.rng, room.things[-1].place
    seats = [each for each in pool if each.klass == _SEAT and each.size[0] < 0.7]
    if not seats or rng.uniform() < 0.3:
        return
    seat = seats[int(rng.integers(len(seats)))]
    axis = int(table.size[2] > table.size[0])  # the longer side
    for sign in (-1, 1):
        for slot in range(max(1, int(table.size[2 * axis] / 0.7))):
            if rng.uniform() < 0.35:
                continue
            local = np.zeros(4)
            local[2 * axis] = (slot + 0.5) * 0.7 - table.size[2 * axis] / 2
            out = table.size[2 - 2 * axis] / 2 + seat.size[2] * rng.uniform(0.5, 0.8)
            local[2 - 2 * axis], local[3] = sign * out, 1.0
            at = (placed @ local)[:3]
            inwards = placed[:3, :3] @ np.array([-sign * axis, 0, -sign * (1 - axis)], float)
            room.put(seat, at, float(np.arctan2(inwards[0], inwards[2])))


def put_on_surfaces(room: Room, pool: Sequence[Model], models: Sequence[Model], count: int) -> None:
    """Up to `count` tries to put small things, most of them of the room's kind, on furniture."""
    rng = room.rng
    small = [each for each in pool if max(each.size) < 0.6 and each.elevation < 0.1]
    any_small = [each for each in models if max(each.size) < 0.5 and each.elevation < 0.1]
    for _ in range(count if room.surfaces and any_small else 0):
        choice = small if small and rng.uniform() < 0.7 else any_small
        model = choice[int(rng.integers(len(choice)))]
        host, at, turn = room.surfaces[int(rng.integers(len(room.surfaces)))]
        span = [max(host.size[0] - model.size[0], 0), max(host.size[2] - model.size[2], 0)]
        x, z = rng.uniform(-0.48, 0.48, 2) * span
        point = (place(at, turn) @ np.array([x, host.surface, z, 1]))[:3]
        half = half_size(model, 0.0).max()
        box = np.concatenate([
            point - vector(half, -0.005, half), point + vector(half, model.size[1], half),
        ])  # fmt: skip
        fits = host.size[0] > model.size[0] and box[4] < room.size[1]
        if fits and _is_clear(room, box):
            room.put(model, point, float(rng.uniform(-0.6, 0.6)) + turn, solid=False)
            room.taken.append(box)


def _is_clear(room: Room, box: Float[np.ndarray, "6"]) -> bool:
    """Whether nothing else stands as high as the box and meets it, seen from above; what it stands
    on begins lower."""
    return not any(
        each[1] > box[1] - 0.015 and np.all(box[[0, 2]] < each[[3, 5]])
        and np.all(box[[3, 5]] > each[[0, 2]])
        for each in room.taken
    )  # fmt: skip
