"""Crops: which part of an image a crop shows, and that part of any dense label of the image.

A crop setting is (top, left, height, width, flip) in pixels of the stored image. Labels cover the
whole image at a resolution of their own, so the box is scaled to it, to fractions of a pixel.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64, Num
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.draws import uniforms

_ATTEMPTS = 10
_RATIOS = (3 / 4, 4 / 3)
_KNOWN = np.float32(0.5)  # least share of a place, for it to be known

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of a label, as Pillow has it."""


def crop_settings(
    key: str, height: int, width: int, num_crops: int, seed: int = 0, min_scale: float = 0.2
) -> Int64[np.ndarray, "crops 5"]:
    """The crops of one sample: first the centre square, then random resized crops.

    Crop `i` is drawn from (seed, key, i) alone: more crops leave the first ones as they are.

    Args:
        height: of the stored image, in pixels; `width` too.
        min_scale: smallest share of the image's area; shapes are 3:4 to 4:3, half are flipped.

    Raises:
        ConfigError: no crops, an empty image, or a scale outside of 0..1.
    """
    if num_crops < 1 or height < 1 or width < 1 or not 0 < min_scale <= 1:
        raise ConfigError(
            f"crops: found {num_crops} crops of {height}x{width} pixels, scale from {min_scale}; "
            "expected at least one crop and pixel, and a scale above 0 and up to 1"
        )
    rows = [_centre_square(height, width)]
    rows += [_random_crop(key, i, height, width, seed, min_scale) for i in range(1, num_crops)]
    return np.array(rows, dtype=np.int64)


def crop_dense(
    label: Num[np.ndarray, "..."],
    kind: Kind,
    crops: Int64[np.ndarray, "crops 5"],
    image_size: tuple[int, int],
    size: int,
) -> Num[np.ndarray, "crops ..."]:
    """All crops of one dense label, `size` pixels square, flipped where the setting says so.

    Images and edges are resampled bicubically, depth and planes bilinearly, all with
    anti-aliasing; normals too, and made unit vectors again; classes and instances by nearest
    neighbour; feature maps bilinearly, with areas where they shrink. A flip also mirrors the x of
    normals. What lies outside of a crop has no say in it, but for feature maps.

    Args:
        label: of a dense kind: `[H, W]`, `[H, W, 3]`, or `[C, h, w]` for feature maps.
        image_size: (height, width) of the stored image, to which the crops refer.

    Returns:
        The label's dtype; `[crops, size, size]`, with the label's channels where it has them.
    """
    rows, columns = label.shape[-2:] if kind is Kind.FEATURE_MAP else label.shape[:2]
    scale_y, scale_x = rows / image_size[0], columns / image_size[1]
    boxes: list[Box] = [
        (left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y)
        for top, left, height, width, _ in crops.tolist()
    ]
    result = _RESAMPLERS[kind](label, boxes, size)
    return _flip(result, kind, crops[:, 4] == 1)


def crop_known_depth(
    depth: Num[np.ndarray, "H W"],
    crops: Int64[np.ndarray, "crops 5"],
    image_size: tuple[int, int],
    size: int,
) -> Float32[np.ndarray, "crops size size"]:
    """Crops of measured depth, in which 0 is unknown and has no say in what is beside it.

    Returns:
        Means of the known places; 0 where less than a half of what a new place is made of is known.
    """

    def resampled(plane: Num[np.ndarray, "H W"]) -> NDArray[np.float32]:
        values = np.ascontiguousarray(plane, np.float32)
        found: NDArray[np.float32] = crop_dense(values, Kind.DEPTH, crops, image_size, size)
        return found

    known, sums = depth > 0, resampled(depth)
    if known.all():
        return sums
    shares = resampled(known.astype(np.float32))
    return np.where(shares >= _KNOWN, sums / np.maximum(shares, _KNOWN), 0)


def _centre_square(height: int, width: int) -> tuple[int, int, int, int, int]:
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side, 0


def _random_crop(
    key: str, index: int, height: int, width: int, seed: int, min_scale: float
) -> tuple[int, int, int, int, int]:
    low, high = map(math.log, _RATIOS)
    for attempt in range(_ATTEMPTS):
        area, shape, down, right, flip = uniforms(5, "crop", seed, key, index, attempt)
        area = height * width * (min_scale + area * (1 - min_scale))
        ratio = math.exp(low + shape * (high - low))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
            return top, left, rows, columns, int(flip < 0.5)
    return (*_centre_square(height, width)[:4], int(flip < 0.5))


def _pillow(
    plane: NDArray[np.generic], boxes: list[Box], size: int, filter_: Image.Resampling
) -> NDArray[np.generic]:
    """By Pillow, which knows boxes that end within a pixel."""
    image = Image.fromarray(plane)
    crops = []
    for left, top, right, bottom in boxes:
        x, y = math.floor(left), math.floor(top)
        whole = image.crop(
            (x, y, min(math.ceil(right), image.width), min(math.ceil(bottom), image.height))
        )
        box = (left - x, top - y, min(right - x, whole.width), min(bottom - y, whole.height))
        crops.append(np.asarray(whole.resize((size, size), filter_, box)))
    return np.stack(crops)


def _bytes(mode: str, filter_: Image.Resampling) -> Callable[..., NDArray[np.generic]]:
    """Resampling of bytes: where boxes end between pixels by torch, several times as fast."""

    def resample(plane: NDArray[np.uint8], boxes: list[Box], size: int) -> NDArray[np.generic]:
        if not all(edge.is_integer() for box in boxes for edge in box):
            return _pillow(plane, boxes, size, filter_)
        import torch
        from torch.nn.functional import interpolate

        channels = 1 if plane.ndim == 2 else plane.shape[2]
        pixels = torch.from_numpy(np.require(plane, requirements="W"))
        image = pixels.view(*plane.shape[:2], channels).permute(2, 0, 1)[None]
        crops = torch.empty((len(boxes), size, size, channels), dtype=torch.uint8)
        for row, box in enumerate(boxes):
            left, top, right, bottom = map(int, box)
            cut = image[:, :, top:bottom, left:right]
            # as bytes lie in a picture, the result is too, and comes in half the time
            cut = cut.contiguous(memory_format=torch.channels_last)
            crops[row] = interpolate(cut, (size, size), mode=mode, antialias=True)[0].movedim(0, -1)
        return crops.numpy().reshape(len(boxes), size, size, *plane.shape[2:])

    return resample


def _bilinear_floats(
    plane: NDArray[np.floating], boxes: list[Box], size: int
) -> NDArray[np.generic]:
    return _pillow(plane, boxes, size, Image.Resampling.BILINEAR)


def _nearest(plane: NDArray[np.generic], boxes: list[Box], size: int) -> NDArray[np.generic]:
    return _pillow(plane, boxes, size, Image.Resampling.NEAREST)


def _resample_normals(plane: NDArray[np.uint8], boxes: list[Box], size: int) -> NDArray[np.generic]:
    vectors = _bilinear_bytes(plane, boxes, size).astype(np.float32) / 127.5 - 1
    length = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    # what is shorter than a half is unknown, or the edge of it: made longer it would be noise
    unit = np.where(length > 0.5, vectors / np.maximum(length, 0.5), 0)
    return np.rint(127.5 * (unit + 1)).astype(np.uint8)


def _resample_map(
    features: NDArray[np.floating], boxes: list[Box], size: int
) -> NDArray[np.generic]:
    rows, columns = features.shape[-2:]
    down = np.stack([_bilinear_weights(rows, box[1], box[3], size) for box in boxes])
    across = np.stack([_bilinear_weights(columns, box[0], box[2], size) for box in boxes])
    wide = np.einsum("chw,kxw->kchx", features.astype(np.float32), across, optimize=True)
    small: NDArray[np.generic] = np.matmul(down[:, None], wide).astype(features.dtype)
    return small


def _bilinear_weights(length: int, start: float, stop: float, size: int) -> NDArray[np.float32]:
    """`[size, length]`: what each cell adds to each new one, by a triangle of the new cell's size.

    Cells are values at their centres; beyond the outer centres the nearest one goes on.
    """
    step = (stop - start) / size
    centres = np.clip(start + (np.arange(size) + 0.5) * step, 0.5, length - 0.5)
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def _flip(
    crops: NDArray[np.generic], kind: Kind, is_flipped: NDArray[np.bool_]
) -> NDArray[np.generic]:
    if not is_flipped.any():
        return crops
    if crops.ndim == 4 and crops.dtype == np.uint8:  # torch mirrors these several times as fast
        import torch

        pixels = torch.from_numpy(crops[is_flipped]).permute(0, 3, 1, 2)
        crops[is_flipped] = pixels.flip(3).permute(0, 2, 3, 1).numpy()
    else:
        axis = -1 if kind is Kind.FEATURE_MAP else 2
        crops[is_flipped] = np.flip(crops[is_flipped], axis)
    if kind is Kind.NORMAL:
        crops[is_flipped, ..., 0] = 255 - crops[is_flipped, ..., 0]
    return crops


_bilinear_bytes = _bytes("bilinear", Image.Resampling.BILINEAR)
_bicubic_bytes = _bytes("bicubic", Image.Resampling.BICUBIC)

_RESAMPLERS: dict[Kind, Callable[..., NDArray[np.generic]]] = {
    Kind.IMAGE: _bicubic_bytes,
    Kind.EDGE: _bicubic_bytes,
    Kind.DEPTH: _bilinear_floats,
    Kind.PLANE: _bilinear_floats,
    Kind.NORMAL: _resample_normals,
    Kind.CLASSES: _nearest,
    Kind.INSTANCES: _nearest,
    Kind.FEATURE_MAP: _resample_map,
}
