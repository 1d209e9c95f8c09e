"""Outdoor scenes: ground with hills, sky, houses, trees, vehicles, people and animals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.pipeline.corpora import surfaces
from fourmill.pipeline.corpora.furniture import Model
from fourmill.pipeline.corpora.meshes import TEXTURE_SIDE as SIDE
from fourmill.pipeline.corpora.meshes import Mesh, box, quads, terrain
from fourmill.pipeline.corpora.scenes import (
    Camera,
    Light,
    Scene,
    Thing,
    Vector,
    place,
    towards,
    vector,
)

EXTENT = 240.0  # metres from the middle to the ground's edge
GRID = 97  # points of the ground in each direction

KINDS = {
    "street": (("Vehicles", "Vehicles", "Characters", "Lights"), (3, 9)),
    "garden": (("Exterior", "Exterior", "Exterior", "Characters"), (0, 4)),
    "park": (("Exterior", "Exterior", "Characters", "Lights"), (0, 2)),
    "field": (("Characters", "Exterior", "Vehicles"), (0, 2)),
    "yard": (("Exterior", "Living room", "Miscellaneous", "Vehicles", "Characters"), (1, 4)),
}
"""Kinds of place: the categories that fill it, and how few and how many houses stand there."""

_BUILDING, _GROUND = COARSE_CLASSES.index("building"), COARSE_CLASSES.index("ground")
_PLANT, _VEHICLE = COARSE_CLASSES.index("plant"), COARSE_CLASSES.index("vehicle")


def landscape(rng: np.random.Generator, models: Sequence[Model]) -> Scene | None:
    """A scene in the open, or `None` where no place for a camera was found."""
    kind = str(rng.choice(list(KINDS)))
    categories, houses = KINDS[kind]
    heights = _heights(rng, flat=kind == "street")
    ground = terrain(heights, EXTENT, surfaces.soil(rng), rng.uniform(2, 8))
    shell = [Thing(ground, np.eye(4), _GROUND)]
    taken: list[tuple[float, float, float]] = []
    if kind == "street":
        shell.append(_road(rng))
    things = [_house(rng, heights, taken) for _ in range(int(rng.integers(*houses, endpoint=True)))]
    pool = _pool(models, categories)
    trees = [each for each in models if each.klass == _PLANT and each.size[1] > 2.5]
    for number in range(int(rng.integers(10, 34))):
        choice = trees if trees and number % 3 == 0 and kind != "street" else pool
        model = choice[int(rng.integers(len(choice)))]
        if (thing := _stand(rng, model, heights, taken)) is not None:
            things.append(thing)
    camera = _camera(rng, things, heights, taken)
    if camera is None:
        return None
    light, sky = _daylight(rng, camera)
    middle = camera.eye + (camera.target - camera.eye) * 0.5
    return Scene([*shell, *things], camera, light, middle, sky, kind)


def _pool(models: Sequence[Model], categories: Sequence[str]) -> list[Model]:
    outdoor_lamps = ("lamppost", "street", "park light")
    return [
        model for name in categories for model in models
        if model.category == name and max(model.size) > 0.3 and model.elevation < 0.3
        and (name != "Lights" or any(each in model.spoken for each in outdoor_lamps))
    ]  # fmt: skip


def _heights(rng: np.random.Generator, *, flat: bool) -> Float[np.ndarray, "rows columns"]:
    """Ground that is nearly even in the middle and may rise to hills far away."""
    rough = surfaces.noise(rng, 128, 128, 0.45)[:GRID, :GRID].astype(np.float64)
    z, x = np.mgrid[-1 : 1 : GRID * 1j, -1 : 1 : GRID * 1j]
    distance = np.hypot(x, z) * EXTENT
    hills = np.clip((distance - 25) / 80, 0, 1) * rng.choice([0.0, 3.0, 10.0, 30.0])
    near = 0.0 if flat else rng.choice([0.0, 0.3, 0.8]) * np.clip(distance / 25, 0, 1)
    return np.asarray(rough * near + np.abs(rough) * hills)


def _height_at(heights: Float[np.ndarray, "rows columns"], x: float, z: float) -> float:
    column, row = ((each / EXTENT + 1) / 2 * (GRID - 1) for each in (x, z))
    i, j = int(row), int(column)
    v, u = row - i, column - j
    (a, b), (d, c) = heights[i : i + 2, j : j + 2]
    # the same two triangles as `terrain` makes
    return float(a + u * (b - a) + v * (c - b) if u > v else a + v * (d - a) + u * (c - d))


def _road(rng: np.random.Generator) -> Thing:
    half, along = rng.uniform(2.5, 6), rng.uniform(-np.pi, np.pi)
    grey = np.array([1.0, 1.0, 1.03]) * rng.uniform(0.2, 0.5)
    shade = surfaces.noise(rng, SIDE, SIDE, 0.9)[..., None]
    asphalt = np.clip(grey * (1 + 0.12 * shade) * 255, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.6:
        asphalt[: SIDE // 2, SIDE // 2 - 1 : SIDE // 2 + 1] = 220
    corners = np.array([[(-half, 0, 60), (half, 0, 60), (half, 0, -60), (-half, 0, -60)]])
    strip = quads(corners, asphalt)
    strip.vertices["uv"][:, 1] *= 20
    return Thing(strip, place(vector(0, 0.02, 0), along), _GROUND)


def _house(
    rng: np.random.Generator,
    heights: Float[np.ndarray, "rows columns"],
    taken: list[tuple[float, float, float]],
) -> Thing:
    """A box with a front of windows and a flat, gabled or hipped roof."""
    storeys, storey = int(rng.choice([1, 1, 2, 2, 3, 5, 9])), rng.uniform(2.6, 3.4)
    x, z = (2.2 * storey * np.round(rng.uniform(2, 8, 2) / 2)) / 2 + 1.5
    tall = storeys * storey
    walls = box((-x, -2.0, -z), (x, tall, z), surfaces.facade(rng), storey)
    turn = rng.uniform(-np.pi, np.pi)
    distance = np.hypot(x, z) + rng.uniform(8, 40)
    at = distance * towards(turn, 0.0)
    taken.append((at[0], at[2], float(np.hypot(x, z))))
    at[1] = _height_at(heights, at[0], at[2])
    roof = _roof(rng, x, tall, z)
    facing = turn + np.pi + rng.normal(0, 0.4)
    return Thing(_joined(walls, roof), place(at, facing), _BUILDING, "house")


def _roof(rng: np.random.Generator, x: float, y: float, z: float) -> Mesh:
    tint = (
        np.array([0.5, 0.25, 0.18]) if rng.uniform() < 0.6 else np.full(3, rng.uniform(0.15, 0.5))
    )
    shade = surfaces.bricks(rng).astype(np.float64).mean(-1, keepdims=True) / 255 + 0.4
    tiles = np.clip(shade * tint * rng.uniform(0.7, 1.3) * 255, 0, 255).astype(np.uint8)
    over, rise = 0.4, rng.choice([0.0, 0.5, 0.9]) * z
    ridge, x, z = x * rng.choice([0.4, 1.0]), x + over, z + over
    top = y + rise
    slopes = np.array(
        [
            [(-x, y, z), (x, y, z), (ridge, top, 0), (-ridge, top, 0)],
            [(x, y, -z), (-x, y, -z), (-ridge, top, 0), (ridge, top, 0)],
            [(x, y, z), (x, y, -z), (ridge, top, 0), (ridge, top, 1e-3)],
            [(-x, y, -z), (-x, y, z), (-ridge, top, 1e-3), (-ridge, top, 0)],
        ],
    )
    return quads(slopes, tiles, 2.0)


def _joined(first: Mesh, second: Mesh) -> Mesh:
    vertices = np.concatenate([first.vertices, second.vertices])
    vertices["layer"][len(first.vertices) :] += len(first.textures)
    triangles = np.concatenate([first.triangles, second.triangles + len(first.vertices)])
    return Mesh(
        vertices, triangles.astype(np.uint32), np.concatenate([first.textures, second.textures])
    )


def _stand(
    rng: np.random.Generator,
    model: Model,
    heights: Float[np.ndarray, "rows columns"],
    taken: list[tuple[float, float, float]],
) -> Thing | None:
    """The model somewhere on the ground, if it finds a free place; flat ones lie on it."""
    radius = float(np.hypot(model.size[0], model.size[2])) / 2
    for _ in range(6):
        reach = rng.uniform(0.5, 13) if model.size[1] < 3 else rng.uniform(4, 30)
        angle = rng.uniform(-np.pi, np.pi)
        x, z = np.sin(angle) * reach, np.cos(angle) * reach
        crown = 0.4 if model.klass == _PLANT and model.size[1] > 2 else 1.0
        if all(np.hypot(x - a, z - b) > 0.8 * (crown * radius + c) for a, b, c in taken):
            flat = model.size[1] < 0.06
            if not flat:
                taken.append((x, z, crown * radius))
            y = _height_at(heights, x, z) + (0.03 if flat else -0.01)
            turn = rng.uniform(-np.pi, np.pi)
            scale = rng.uniform(0.8, 1.25) if model.klass == _PLANT else 1.0
            gloss = rng.uniform(0.1, 0.5) if model.klass == _VEHICLE else 0.1 * rng.uniform()
            credit = f"{model.name}: {model.creator} ({model.licence})"
            name = "" if model.klass == _GROUND else model.spoken
            return Thing(
                model, place(vector(x, y, z), turn, scale), model.klass, name, gloss, credit=credit
            )
    return None


def _camera(
    rng: np.random.Generator,
    things: Sequence[Thing],
    heights: Float[np.ndarray, "rows columns"],
    taken: Sequence[tuple[float, float, float]],
) -> Camera | None:
    for _ in range(30 if things else 0):
        x, z = rng.uniform(-10, 10, 2)
        if any(np.hypot(x - a, z - b) < c + 0.3 for a, b, c in taken):
            continue
        above = rng.uniform(1.2, 2.0) if rng.uniform() < 0.7 else rng.uniform(0.3, 7.0)
        eye = vector(x, _height_at(heights, x, z) + above, z)
        thing = things[int(rng.integers(len(things)))]
        target: Vector = thing.place[:3, 3] + vector(0, rng.uniform(0, 2), 0)
        flat = float(np.hypot(*(target - eye)[[0, 2]]))
        if 1.0 < flat < 35 and abs(target[1] - eye[1]) < 0.6 * flat:
            target = target + rng.normal(0, 0.08 * flat, 3)
            if rng.uniform() < 0.5:  # level, as most people hold a camera
                target[1] = eye[1] + rng.normal(0, 0.08) * flat
            return Camera(eye, target, rng.uniform(32, 72), rng.normal(0, 0.025))
    return None


def _daylight(rng: np.random.Generator, camera: Camera) -> tuple[Light, np.ndarray]:
    night = rng.uniform() < 0.05
    sky = surfaces.sky(rng, night=night)
    high, azimuth = rng.uniform(0.2, 1.3), rng.uniform(-np.pi, np.pi)
    warm = np.array([1.0, 0.8 + 0.2 * np.sin(high), 0.6 + 0.4 * np.sin(high)])
    strength = 0.1 if night else rng.choice([0.4, 1.6, 2.4, 3.2])
    ambient = (sky.reshape(-1, 3).mean(0) / 255 + 0.05) * rng.uniform(0.5, 1.0)
    return Light(
        position=camera.eye + 60 * towards(azimuth, high),
        colour=warm * strength,
        fill=np.full(3, 0.6 if night else 0.0),
        ambient=ambient,
        reach=22.0,
        exposure=float(rng.uniform(0.8, 1.5)),
        haze=float(rng.choice([0.0, 0.002, 0.006, 0.02])),
    ), sky
