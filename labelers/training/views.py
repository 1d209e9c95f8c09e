"""Views of a sample for training: as it is, or cropped, mirrored and with other colours.

The backbone is frozen and its features are cached, so a view is drawn once, from the sample's key.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from fourmill.labelers.backbones import vit_s_focus
from fourmill.labelers.sizes import resized

SIZE = 128
"""Side of the pixels and of the truth in a view."""

UNKNOWN_CLASS = 255
UNKNOWN_NORMAL = 128
SKY_METRES = 32.0

_SMALLEST_CROP = 0.5  # of the image's shorter side; photographs show things closer than renders do


@dataclass(frozen=True)
class View:
    """One training example, without its features.

    Attributes:
        image: what the backbone sees, at its size.
        pixels: the same at `SIZE`.
        depth: metres, 0 where it is unknown.
        normals: `127.5 * (n + 1)`, camera frame; (128, 128, 128) where unknown.
        classes: index of `COARSE_CLASSES`, 255 where unknown.
    """

    image: UInt8[np.ndarray, "224 224 3"]
    pixels: UInt8[np.ndarray, "128 128 3"]
    depth: Float32[np.ndarray, "128 128"]
    normals: UInt8[np.ndarray, "128 128 3"]
    classes: UInt8[np.ndarray, "128 128"]


def make_view(sample: dict[str, Any], number: int) -> View:
    """View 0 is the centre square as it is; the others are drawn from the key and the number."""
    rgb = sample["rgb"]
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left, flip = (height - side) // 2, (width - side) // 2, False
    if number:
        digest = hashlib.sha256(f"{sample['key']}/{number}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        side = round(side * rng.uniform(_SMALLEST_CROP, 1))
        top, left = (int(rng.integers(0, room + 1)) for room in (height - side, width - side))
        flip = bool(rng.integers(0, 2))
    window = slice(top, top + side), slice(left, left + side)
    crop = rgb[window]
    if number:
        crop = _other_colours(crop, rng)
    depth, normals, classes = _truth(sample, (height, width), window)
    if flip:
        crop, depth, normals, classes = (
            np.ascontiguousarray(each[:, ::-1]) for each in (crop, depth, normals, classes)
        )
        known = (normals != UNKNOWN_NORMAL).any(axis=-1)
        normals[known, 0] = 255 - normals[known, 0]
    network_side = 16 * vit_s_focus.PATCH
    return View(
        resized(crop, network_side, network_side),
        resized(crop, SIZE, SIZE),
        depth,
        normals,
        classes,
    )


def _truth(
    sample: dict[str, Any], size: tuple[int, int], window: tuple[slice, slice]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    unknown: dict[str, NDArray[Any]] = {
        "truth_depth": np.zeros(size, np.float32),
        "truth_normal": np.full((*size, 3), UNKNOWN_NORMAL, np.uint8),
        "truth_semseg_coarse": np.full(size, UNKNOWN_CLASS, np.uint8),
    }
    planes = [
        # nearest, because a mean over an edge is a depth, a normal or a class of nothing
        cv2.resize(
            sample[name][window] if sample.get(name) is not None else plane[window],
            (SIZE, SIZE),
            interpolation=cv2.INTER_NEAREST,
        )
        for name, plane in unknown.items()
    ]
    return planes[0], planes[1], planes[2]


def _other_colours(
    rgb: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Light, contrast, saturation and tint as of another camera; blur, noise or JPEG now and then.

    Renders are cleaner than photographs, and the features should not tell the two apart.
    """
    pixels = (rgb / np.float32(255)) ** np.float32(np.exp(rng.normal(0, 0.25)))
    grey = pixels.mean(axis=-1, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(rng.uniform(0.3, 1.5))
    pixels = (pixels - 0.5) * np.float32(rng.uniform(0.7, 1.3)) + np.float32(rng.normal(0.5, 0.06))
    pixels = pixels * rng.normal(1, 0.06, 3).astype(np.float32)
    if rng.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(0.005, 0.04), pixels.shape)
        pixels = pixels + noise.astype(np.float32)
    jittered: NDArray[Any] = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        _, data = cv2.imencode(".jpg", jittered, quality)
        jittered = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return jittered
