"""Labels: the value of one modality of one sample, its checks, and its bytes in a shard."""

import io
import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests import images
from fourmill.manifests.errors import SampleError
from fourmill.manifests.label_checks import find_problem
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.npy import decode_npy, encode_npy
from fourmill.manifests.npz import decode_sequence, encode_sequence

Label: TypeAlias = NDArray[Any] | str | dict[str, Any] | list[Any]
"""By `Modality.kind`; the comments of `modalities.Kind` say which type goes with which kind."""

_GREY = frozenset({Kind.EDGE, Kind.CLASSES})
_GREY_16 = frozenset({Kind.DEPTH, Kind.PLANE, Kind.INSTANCES})
_COLOUR = frozenset({Kind.IMAGE, Kind.NORMAL})
_JSON = frozenset({Kind.BOXES, Kind.STRUCTURE})
_ARRAYS: dict[Kind, tuple[type[np.generic], ...]] = {
    Kind.FEATURE_MAP: (np.float16,),
    Kind.VECTOR: (np.float32,),
    Kind.CROPS: (np.int64,),
    Kind.TOKENS: (np.int16, np.int32),
}
_PNG_LEVEL = 4  # of compression: 6 takes twice the time for a few per cent


@dataclass(frozen=True)
class Encoding:
    """How depth becomes 16-bit integers: `depth = png * scale + offset`.

    The default is for relative depth, 0..1. That of planes follows from their range, so that the
    lowest number is 0 and the highest 65535.
    """

    scale: float = 1 / 65535
    offset: float = 0.0


def check_label(modality: Modality, value: object) -> None:
    """Refuse what is not a label of this modality: type, dtype, shape, range, NaN, class index.

    Raises:
        SampleError: what was found and what was expected; its stage is the modality's name.
    """
    problem = find_problem(modality, value)
    if problem is not None:
        raise SampleError(modality.name, problem)


def encode_label(modality: Modality, value: object, encoding: Encoding = Encoding()) -> bytes:
    """The bytes of a member of a shard; the same label gives the same bytes.

    Raises:
        SampleError: not a label of this modality, or depth outside of what `encoding` can hold.
    """
    check_label(modality, value)
    return encode_checked(modality, value, encoding)


def encode_checked(modality: Modality, value: object, encoding: Encoding = Encoding()) -> bytes:
    """The same of what `check_label` has let pass, which need not be looked at twice.

    Raises:
        SampleError: depth outside of what `encoding` can hold.
    """
    kind = modality.kind
    if kind is Kind.TEXT:
        assert isinstance(value, str)
        return value.encode()
    if kind in _JSON:
        _refuse_other_forms(modality)
        return _dump(value)
    assert isinstance(value, np.ndarray)
    if kind in _ARRAYS:
        return encode_npy(value)
    if kind is Kind.SEQUENCE:
        return encode_sequence(value)
    if kind is Kind.DEPTH:
        value = _quantise(modality, value, encoding)
    if kind is Kind.PLANE:
        value = _steps(value, _encoding_of(modality)).clip(0, 65535).astype(np.uint16)
    return _write_image(value, modality.extension)


def decode_label(modality: Modality, data: bytes, encoding: Encoding = Encoding()) -> Label:
    """The label of a member's bytes; nothing is ever unpickled.

    Raises:
        SampleError: the bytes are not what this modality is stored as.
    """
    kind = modality.kind
    if kind is Kind.IMAGE:
        return decode_image(data)
    try:
        if kind is Kind.TEXT:
            return data.decode()
        if kind in _JSON:
            _refuse_other_forms(modality)
            return _load(data)
        if kind in _ARRAYS:
            return _expect(decode_npy(data), *_ARRAYS[kind])
        if kind is Kind.SEQUENCE:
            return decode_sequence(data)
        return _decode_plane(modality, data, encoding)
    except SampleError as error:
        raise SampleError(modality.name, error.reason) from error
    except (ValueError, RecursionError) as error:
        raise SampleError(modality.name, f"not readable as {kind.value}: {error}") from error


def empty_label(modality: Modality) -> bytes:
    """What stands in a shard for a label that is missing: small, and decodable."""
    kind = modality.kind
    if kind is Kind.TEXT:
        return b""
    if kind is Kind.BOXES:
        return b'{"instances":[]}'
    if kind is Kind.STRUCTURE:
        return b"{}"
    if kind in _ARRAYS:
        return encode_npy(np.zeros(0, _ARRAYS[kind][0]))
    if kind is Kind.SEQUENCE:
        return encode_sequence(np.zeros((0, 1), np.float16))
    shape = (1, 1, 3) if kind in _COLOUR else (1, 1)
    dtype = np.uint16 if kind in _GREY_16 else np.uint8
    return _write_image(np.zeros(shape, dtype), modality.extension)


def decode_image(
    data: bytes, max_side: int | None = None, max_pixels: int = 100_000_000
) -> UInt8[np.ndarray, "height width 3"]:
    """Upright RGB, 0..255, of a JPEG, PNG or WebP of any mode; what is transparent becomes white.

    Args:
        max_side: shrink to this many pixels of the longer side; never enlarges.
        max_pixels: refuse larger pictures, before they are decoded.

    Raises:
        SampleError: stage `decode`; truncated, not a picture, too large.
    """
    return images.read_rgb(data, max_side, max_pixels)


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels of the upright picture, from its header alone.

    Raises:
        SampleError: stage `decode`; not a picture.
    """
    return images.read_size(data)


def image_format(data: bytes) -> str:
    """`jpg`, `png` or `webp`, from the first bytes; also the member's extension.

    Raises:
        SampleError: stage `decode`; none of these.
    """
    return images.read_format(data)


def _refuse_other_forms(modality: Modality) -> None:
    if modality.extension != "json":
        raise SampleError(
            modality.name, f"structures are stored as json; .{modality.extension} is not supported"
        )


def _dump(value: object) -> bytes:
    return json.dumps(
        value, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    ).encode()


def _load(data: bytes) -> dict[str, Any] | list[Any]:
    value = json.loads(data)
    if not isinstance(value, (dict, list)):
        raise ValueError(f"found {type(value).__name__}, expected a dict or a list")
    return value


def _encoding_of(modality: Modality) -> Encoding:
    """That of a plane."""
    assert modality.value_range is not None
    low, high = modality.value_range
    return Encoding((high - low) / 65535, low)


def _steps(numbers: NDArray[Any], encoding: Encoding) -> NDArray[np.float64]:
    steps: NDArray[np.float64] = (numbers.astype(np.float64) - encoding.offset) / encoding.scale
    return np.rint(steps)


def _quantise(modality: Modality, depth: NDArray[Any], encoding: Encoding) -> NDArray[np.uint16]:
    steps = _steps(depth, encoding)
    if steps.min() < 0 or steps.max() > 65535:
        end = encoding.offset + 65535 * encoding.scale
        raise SampleError(
            modality.name,
            f"found depth {depth.min():g} to {depth.max():g}, its encoding holds "
            f"{encoding.offset:g} to {end:g}",
        )
    return steps.astype(np.uint16)


def _write_image(array: NDArray[Any], extension: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    if extension == "png":
        image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    elif extension == "webp":
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _decode_plane(modality: Modality, data: bytes, encoding: Encoding) -> NDArray[Any]:
    kind = modality.kind
    plane = images.read_png(data)
    if kind is Kind.DEPTH:
        steps = _expect(plane, np.uint16)
        return (steps * encoding.scale + encoding.offset).astype(np.float32)
    if kind is Kind.PLANE:
        assert modality.value_range is not None
        own = _encoding_of(modality)
        numbers = _expect(plane, np.uint16) * own.scale + own.offset
        return numbers.clip(*modality.value_range).astype(np.float32)
    channels = 3 if kind is Kind.NORMAL else 1
    if (plane.ndim == 3) != (channels == 3):
        raise ValueError(
            f"found {'x'.join(map(str, plane.shape))} values, expected {channels} a pixel"
        )
    return _expect(plane, np.uint16 if kind in _GREY_16 else np.uint8)


def _expect(array: NDArray[Any], *dtypes: type[np.generic]) -> NDArray[Any]:
    if array.dtype not in dtypes:
        raise ValueError(f"found {array.dtype}, expected {np.dtype(dtypes[0])}")
    return array
