"""Pictures of the wild as upright RGB arrays; headers are judged before anything is decoded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests.errors import SampleError

MAX_SIDE_PIXELS = 32_767
"""Longest side of a picture that is read at all."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))
_PILLOW_NAMES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def read_format(data: bytes) -> str:
    """`jpg`, `png` or `webp`, from the first bytes.

    Raises:
        SampleError: none of these.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise SampleError(
        "decode", f"neither JPEG, PNG nor WebP: {len(data)} bytes that begin with {data[:8]!r}"
    )


def read_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels of the upright picture, from its header alone.

    Raises:
        SampleError: not a picture.
    """
    with _reading(), _open(data) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_rgb(
    data: bytes, max_side: int | None, max_pixels: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Upright RGB, 0..255; see `labels.decode_image`."""
    with _reading(), _open(data) as image:
        width, height = image.size
        if max(width, height) > MAX_SIDE_PIXELS or width * height > max_pixels:
            raise SampleError(
                "decode",
                f"{width} x {height} pixels are more than the limit of {max_pixels:,} pixels, and "
                f"of {MAX_SIDE_PIXELS:,} a side",
            )
        orientation = _orientation(image)  # before loading: see there
        size = _fitting(image.size, max_side)
        if size != image.size:
            image.draft(None, (2 * size[0], 2 * size[1]))  # JPEG decodes at 1/2, 1/4 or 1/8
        rgb = _to_rgb(image)
        if size != rgb.size:
            rgb = rgb.resize(size, Image.Resampling.BICUBIC)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        return np.asarray(rgb).copy()


def read_png(data: bytes) -> NDArray[Any]:
    """The pixels of a label's PNG as they are: uint8 or uint16 `[H, W]`, or uint8 `[H, W, 3]`.

    Raises:
        SampleError: not a PNG of one of these kinds.
    """
    with _reading(), _open(data) as image:
        if image.mode == "I;16":
            return np.asarray(image).astype(np.uint16)
        if image.mode not in ("L", "RGB"):
            raise SampleError(
                "decode", f"found a PNG of mode {image.mode}, expected L, I;16 or RGB"
            )
        return np.asarray(image).copy()


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever Pillow says of broken bytes, as one kind of error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes (judged by us) and of odd metadata
            yield
    except SampleError:
        raise
    except Image.DecompressionBombError as error:  # from the header; nothing was decoded
        raise SampleError(
            "decode", f"{str(error).split(',')[0]}: store it smaller, or leave it out"
        ) from error
    except Exception as error:  # decoders that are fed garbage raise almost anything
        raise SampleError("decode", f"{type(error).__name__}: {error}") from error


def _open(data: bytes) -> Image.Image:
    name = _PILLOW_NAMES[read_format(data)]
    return Image.open(io.BytesIO(data), formats=[name])


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; 1 where there is none or it cannot be read.

    A PNG may carry EXIF behind its pixels. That is not looked for: it would have to be decoded to
    know its size.
    """
    if image.format == "PNG" and not image.info.keys() & {"exif", "Raw profile type exif"}:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata is common and says nothing of the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _fitting(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    width, height = (max(1, round(each * max_side / longest)) for each in size)
    return width, height


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip, not scale
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        page = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(page, layered).convert("RGB")
    if image.mode == "RGB":  # converting would copy it
        image.load()
        return image
    return image.convert("RGB")
