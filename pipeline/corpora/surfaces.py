"""Procedural textures of walls, floors, ground and sky, drawn from a random generator.

All but the sky are uint8 [SIDE, SIDE, 3] and repeat without a seam.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from fourmill.pipeline.corpora.meshes import TEXTURE_SIDE as SIDE

Texture = UInt8[np.ndarray, f"{SIDE} {SIDE} 3"]
Plane = Float[np.ndarray, "height width"]

SKY_SHAPE = (128, 256)


def noise(rng: np.random.Generator, height: int, width: int, roughness: float = 0.5) -> Plane:
    """Smooth noise of many scales that repeats in both directions, mean 0, most of it in -1..1."""
    total = np.zeros((height, width), np.float32)
    cells, weight = 4, 1.0
    while cells <= min(height, width):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        margin = 2  # wraps around, so that the enlarged grid does too
        padded = np.pad(grid, margin, mode="wrap")
        scale_y, scale_x = height // cells, width // cells
        size = (scale_x * (cells + 2 * margin), scale_y * (cells + 2 * margin))
        large = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)
        y, x = margin * scale_y, margin * scale_x
        total += weight * large[y : y + height, x : x + width]
        cells, weight = cells * 2, weight * roughness
    return np.asarray(total / max(float(total.std()), 1e-6) / 2)


def colour(rng: np.random.Generator, value: tuple[float, float], saturation: float) -> np.ndarray:
    """A random RGB colour, 0..1, of a brightness in that range and at most that saturation."""
    hue = rng.uniform(0, 360)
    hsv = np.array([[[hue, saturation * rng.uniform() ** 1.5, rng.uniform(*value)]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float64)


def _paint(shade: Plane, base: np.ndarray, contrast: float) -> Texture:
    pixels = base * (1 + contrast * shade[..., None])
    return np.asarray(np.clip(pixels * 255, 0, 255), np.uint8)


def plaster(rng: np.random.Generator) -> Texture:
    """A painted wall or ceiling, nearly even."""
    return _paint(noise(rng, SIDE, SIDE, 0.8), colour(rng, (0.55, 0.97), 0.4), rng.uniform(0, 0.06))


def wallpaper(rng: np.random.Generator) -> Texture:
    """Stripes, dots or lozenges in two colours."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    count = int(rng.integers(2, 9))
    kind = rng.integers(3)
    if kind == 0:
        pattern = np.sin(2 * np.pi * count * x) > rng.uniform(-0.7, 0.7)
    elif kind == 1:
        pattern = np.sin(2 * np.pi * count * x) * np.sin(2 * np.pi * count * y) > 0.5
    else:
        pattern = np.abs(np.sin(np.pi * count * (x + y))) < np.abs(np.sin(np.pi * count * (x - y)))
    first = colour(rng, (0.5, 0.95), 0.5)
    second = np.clip(first * rng.uniform(0.7, 1.2, 3), 0, 1)
    pixels = np.where(pattern[..., None], first, second)
    return np.asarray(np.clip(pixels * 255, 0, 255), np.uint8)


def planks(rng: np.random.Generator) -> Texture:
    """Floor boards with their grain."""
    boards = int(rng.integers(4, 9))
    board = (np.arange(SIDE) * boards // SIDE)[:, None]
    joint = (np.arange(SIDE)[None] + rng.integers(0, SIDE, boards)[board]) % SIDE
    grain = cv2.resize(noise(rng, SIDE, SIDE), (SIDE * 8, SIDE))[:, ::8]
    grain = np.roll(cv2.blur(grain, (31, 1), borderType=cv2.BORDER_REFLECT), 3, 1)
    shade = 0.5 * grain + rng.uniform(-0.6, 0.6, boards)[board] * 0.4
    edge = (np.arange(SIDE)[:, None] * boards % SIDE < boards) | (joint < 1)
    wood = np.array([0.62, 0.42, 0.25]) * rng.uniform(0.4, 1.4) * rng.uniform(0.9, 1.1, 3)
    return _paint(np.where(edge, -1.2, shade), np.clip(wood, 0, 0.95), rng.uniform(0.2, 0.45))


def tiles(rng: np.random.Generator) -> Texture:
    """Square tiles with joints, one colour or like a chessboard."""
    count = int(rng.choice([2, 4]))
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    cell = SIDE // count
    width = int(rng.integers(1, 4))
    joint = (y % cell < width) | (x % cell < width)
    first = colour(rng, (0.4, 0.95), 0.4)
    second = colour(rng, (0.15, 0.9), 0.4) if rng.uniform() < 0.4 else first
    chess = ((y // cell + x // cell) % 2 == 0)[..., None]
    pixels = np.where(chess, first, second) * (1 + 0.08 * noise(rng, SIDE, SIDE)[..., None])
    pixels[joint] = rng.uniform(0.3, 0.9)
    return np.asarray(np.clip(pixels * 255, 0, 255), np.uint8)


def bricks(rng: np.random.Generator) -> Texture:
    """Courses of bricks, each second one moved by half a brick."""
    rows, columns = int(rng.choice([8, 16])), 4
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    row = y * rows // SIDE
    x = (x + (row % 2) * SIDE // columns // 2) % SIDE
    joint = (y % (SIDE // rows) < 1) | (x % (SIDE // columns) < 1)
    shade = rng.uniform(-0.5, 0.5, (rows, columns))[row, x * columns // SIDE]
    red = np.array([0.62, 0.33, 0.25]) * rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
    base = np.clip(red, 0, 0.95) if rng.uniform() < 0.6 else colour(rng, (0.4, 0.9), 0.2)
    pixels = _paint(shade + noise(rng, SIDE, SIDE, 0.9), base, 0.2)
    pixels[joint] = int(rng.uniform(120, 210))
    return pixels


def carpet(rng: np.random.Generator) -> Texture:
    """Cloth: fine grain of one colour."""
    grain = rng.standard_normal((SIDE, SIDE)).astype(np.float32) * 0.5 + noise(rng, SIDE, SIDE)
    return _paint(grain, colour(rng, (0.2, 0.8), 0.6), rng.uniform(0.05, 0.2))


def soil(rng: np.random.Generator) -> Texture:
    """Grass, sand, snow, earth, gravel or asphalt."""
    kinds = [
        (0.22, 0.36, 0.12), (0.30, 0.42, 0.16), (0.40, 0.40, 0.18), (0.76, 0.66, 0.48),
        (0.92, 0.94, 0.97), (0.42, 0.32, 0.22), (0.55, 0.53, 0.50), (0.30, 0.30, 0.31),
        (0.42, 0.42, 0.43), (0.65, 0.63, 0.60),
    ]  # fmt: skip
    base = np.array(kinds[int(rng.integers(len(kinds)))]) * rng.uniform(0.75, 1.2)
    shade = noise(rng, SIDE, SIDE, rng.uniform(0.6, 1.1))
    tinted = base + 0.05 * noise(rng, SIDE, SIDE)[..., None] * rng.uniform(-1, 1, 3)
    contrast = rng.uniform(0.1, 0.45) * (0.3 if base.min() > 0.85 else 1.0)
    return _paint(shade, np.clip(tinted, 0, 1), contrast)


def facade(rng: np.random.Generator) -> Texture:
    """One storey and two windows of a house front."""
    pixels = (bricks(rng) if rng.uniform() < 0.4 else plaster(rng)).copy()
    glass = colour(rng, (0.15, 0.6), 0.4) * np.array([0.9, 1.0, 1.1])
    frame = int(rng.uniform(150, 250)) if rng.uniform() < 0.7 else 60
    width, height = int(rng.integers(22, 44)), int(rng.integers(50, 86))
    top = (SIDE - height) // 2 + int(rng.integers(-6, 12))
    for centre in (SIDE // 4, 3 * SIDE // 4):
        left = centre - width // 2
        pixels[top - 3 : top + height + 3, left - 3 : left + width + 3] = frame
        shine = np.linspace(1.25, 0.75, height)[:, None, None] * glass
        pixels[top : top + height, left : left + width] = np.clip(shine * 255, 0, 255)
        pixels[top : top + height, centre - 1 : centre + 1] = frame
    return pixels


def picture(rng: np.random.Generator) -> Texture:
    """An abstract painting."""
    field = np.stack([noise(rng, SIDE, SIDE, 0.3) for _ in range(3)], -1)
    pixels = np.clip(colour(rng, (0.3, 0.9), 0.8) + 0.35 * field, 0, 1)
    if rng.uniform() < 0.5:
        pixels = np.round(pixels * 3) / 3
    canvas = (pixels * 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        (x0, y0), (x1, y1) = rng.integers(0, SIDE, (2, 2)).tolist()
        paint = (colour(rng, (0.1, 1.0), 0.9) * 255).tolist()
        if rng.uniform() < 0.5:
            cv2.rectangle(canvas, (x0, y0), (x1, y1), paint, -1)
        else:
            cv2.circle(canvas, (x0, y0), int(rng.integers(4, 40)), paint, -1)
    return canvas


def sky(rng: np.random.Generator, *, night: bool = False) -> UInt8[np.ndarray, "height width 3"]:
    """A panorama, azimuth by columns, from the zenith (first row) to the horizon (last row)."""
    height, width = SKY_SHAPE
    down = np.linspace(0, 1, height)[:, None, None] ** rng.uniform(0.8, 2.5)
    if night:
        zenith, horizon = np.array([0.02, 0.03, 0.08]), np.array([0.1, 0.1, 0.18])
    elif rng.uniform() < 0.2:  # dusk
        zenith, horizon = np.array([0.25, 0.33, 0.6]), np.array([0.98, rng.uniform(0.5, 0.8), 0.45])
    elif rng.uniform() < 0.25:  # overcast
        zenith = np.full(3, rng.uniform(0.6, 0.85))
        horizon = np.clip(zenith + rng.uniform(-0.05, 0.15), 0, 0.97)
    else:
        zenith = np.array([0.18, 0.4, 0.8]) * rng.uniform(0.7, 1.3)
        horizon = np.array([0.72, 0.84, 0.95]) * rng.uniform(0.85, 1.05)
    field = noise(rng, height, width, rng.uniform(0.45, 0.65))
    stretched = cv2.resize(field, (width, height * 2))[:height]
    clouds = np.clip((stretched - rng.uniform(-0.4, 0.8)) * rng.uniform(0.8, 3), 0, 1)[..., None]
    white = np.full(3, 0.12 if night else rng.uniform(0.75, 1.0))
    pixels = zenith * (1 - down) + horizon * down
    pixels = pixels * (1 - 0.9 * clouds) + white * 0.9 * clouds
    return np.asarray(np.clip(pixels * 255, 0, 255), np.uint8)
