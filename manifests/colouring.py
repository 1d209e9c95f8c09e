"""Labels as colours: what a depth, a class or a feature looks like."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import matplotlib
import numpy as np
from jaxtyping import Float, Float16, Float32, Integer, UInt8
from numpy.typing import NDArray

from fourmill.manifests.label_checks import UNKNOWN_CLASS

Rgb = UInt8[np.ndarray, "_height _width 3"]

_UNKNOWN = (205, 205, 205)
_NATURAL = {
    "background": (36, 36, 40), "wall": (222, 207, 184), "floor": (160, 112, 72),
    "ceiling": (196, 186, 222), "door or window": (84, 150, 160), "seat": (214, 39, 40),
    "bed": (148, 103, 189), "table": (255, 140, 40), "plant": (34, 139, 34),
    "person": (255, 70, 140), "animal": (150, 230, 60), "vehicle": (30, 60, 200),
    "sky": (135, 206, 250), "ground": (112, 98, 44), "building": (134, 134, 138),
    "lamp": (255, 225, 80), "food": (130, 14, 50), "storage": (182, 178, 52),
    "appliance": (64, 200, 184), "decoration": (248, 176, 206), "object": (92, 62, 168),
}  # fmt: skip


def depth_colours(
    depth: Float32[np.ndarray, "height width"], like: NDArray[Any] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Near is bright, far is dark; stretched over the middle 96 % of the values.

    Args:
        like: take the range from this one, so that the same colour means the same depth.
    """
    near, far = np.percentile(depth if like is None else like, (2, 98))
    return _mapped("inferno", 1 - _stretched(depth, near, far))


def plane_colours(
    numbers: Float32[np.ndarray, "height width"], like: NDArray[Any] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Low is dark, high is bright; stretched over the middle 96 % of the numbers.

    Args:
        like: take the range from this one, so that the same colour means the same number.
    """
    low, high = np.percentile(numbers if like is None else like, (2, 98))
    return _mapped("inferno", _stretched(numbers, low, high))


def share_colours(shares: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """From dark for 0 to bright for 1."""
    return _mapped("inferno", shares)


def signed_colours(
    values: Float[np.ndarray, "height width"], like: NDArray[Any] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Blue below zero, white at zero, red above; symmetric.

    Args:
        like: take the range from this one.
    """
    limit = float(np.percentile(np.abs(values if like is None else like), 99))
    return _mapped("RdBu_r", _stretched(values, -limit, limit))


def feature_colours(
    features: Float16[np.ndarray, "channels height width"], like: NDArray[Any] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """The first three principal components of the map's channels as red, green and blue.

    The sign of a component is that which makes its largest loading positive.

    Args:
        like: take components and range from this map, so that the same colour means the same.
    """
    rows = _pixels(features)
    basis = rows if like is None else _pixels(like)
    centre = basis.mean(axis=0)
    axes = np.linalg.svd(basis - centre, full_matrices=False)[2][:3]
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.where(axes[np.arange(len(axes)), largest] < 0, -1, 1)[:, None]
    low, high = np.percentile((basis - centre) @ axes.T, (2, 98), axis=0)
    colours = np.full((len(rows), 3), 0.5)
    colours[:, : len(axes)] = _stretched((rows - centre) @ axes.T, low, high)
    result: NDArray[np.uint8] = _bytes(colours).reshape(*features.shape[1:], 3)
    return result


def class_map_colours(
    index: UInt8[np.ndarray, "height width"], classes: Sequence[str]
) -> UInt8[np.ndarray, "height width 3"]:
    """The classes' colours; unknown is light grey."""
    colours: NDArray[np.uint8] = class_colours(tuple(classes))[index]
    return colours


def instance_colours(
    index: Integer[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Every instance in a colour of its number; none is black."""
    wheel = class_colours(())[1:UNKNOWN_CLASS]
    colours = np.asarray(wheel[(index.astype(np.int64) - 1) % len(wheel)])
    colours[index == 0] = 0
    return colours


def token_colours(
    ids: Integer[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Every token id in a colour of its own; near ids have nothing in common."""
    mixed = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    shifts = np.array((40, 48, 56), np.uint64)
    return (mixed[..., None] >> shifts).astype(np.uint8)


@lru_cache(maxsize=16)
def class_colours(classes: tuple[str, ...]) -> UInt8[np.ndarray, "256 3"]:
    """A colour for every class index, natural ones for well-known names; 255 is light grey.

    The others are chosen one by one, each as far as possible from all before it, as the eye sees
    it (CIELAB).
    """
    grid = np.array(np.meshgrid(*[np.linspace(20, 245, 11)] * 3)).reshape(3, -1).T
    candidates = grid.astype(np.uint8)
    places = _as_seen(candidates)
    natural = {
        number: _NATURAL[name] for number, name in enumerate(classes) if name in _NATURAL
    } or {0: _NATURAL["background"]}
    chosen = natural | {UNKNOWN_CLASS: _UNKNOWN}
    taken = _as_seen(np.array(list(chosen.values()), np.uint8))
    distance = np.linalg.norm(places[:, None] - taken, axis=2).min(axis=1)
    table = np.zeros((256, 3), np.uint8)
    for number in range(256):
        if number in chosen:
            table[number] = chosen[number]
            continue
        best = int(distance.argmax())
        table[number] = candidates[best]
        distance = np.minimum(distance, np.linalg.norm(places - places[best], axis=1))
    table.flags.writeable = False
    return table


def _pixels(features: NDArray[Any]) -> NDArray[np.float64]:
    return features.reshape(len(features), -1).T.astype(np.float64)


def _as_seen(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = (colours.astype(np.float32) / 255)[None]
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)[0], np.float32)


def _stretched(values: NDArray[Any], low: Any, high: Any) -> NDArray[np.float64]:
    """From `low`..`high` to 0..1; a half where there is no range."""
    span = np.asarray(high, np.float64) - low
    scaled = (values.astype(np.float64) - low) / np.where(span > 0, span, 1)
    return np.clip(np.where(span > 0, scaled, 0.5), 0, 1)


def _mapped(name: str, values: NDArray[np.float64]) -> NDArray[np.uint8]:
    colours: NDArray[np.uint8] = _table(name)[np.rint(255 * values).astype(np.int64)]
    return colours


@lru_cache(maxsize=4)
def _table(name: str) -> NDArray[np.uint8]:
    return _bytes(np.asarray(matplotlib.colormaps[name](np.linspace(0, 1, 256)))[:, :3])


def _bytes(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(255 * shares).astype(np.uint8)
