"""The npy format: headers that are made once for many records, and arrays from untrusted bytes."""

import io
import math
import re
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

_MAX_HEADER_BYTES = 10_000  # as NumPy
_HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*'(?P<descr>[^']+)'\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>[\d,\s]*)\)\s*,?\s*\}\s*"
)


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of a C-ordered array, format 1.0: what `np.save` writes before the data."""
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(
        buffer,
        {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )
    return buffer.getvalue()


def encode_npy(array: NDArray[Any]) -> bytes:
    """An npy file; the same array gives the same bytes whatever its memory layout."""
    return npy_header(array.dtype, array.shape) + array.tobytes()


def decode_npy(data: bytes) -> NDArray[Any]:
    """The array of an npy file of format 1 or 2, read-only; no object is ever unpickled.

    Raises:
        ValueError: the bytes are no npy file, hold Python objects, or are not as many as the
            header says.
    """
    shape, is_fortran, dtype, start = _read_header(data)
    if dtype.hasobject:
        raise ValueError("the array holds Python objects, which are never read")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        raise ValueError(f"{len(data) - start} bytes of data, the header says {expected}")
    flat = np.frombuffer(data, dtype, offset=start) if expected else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _read_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, dtype, and where the numbers begin.

    Read as a pattern and not as Python: NumPy's own reader parses it as code, even repairs headers
    of Python 2, which ends in errors of many kinds when the bytes are broken, and Python's parser
    itself fails at times where several threads use it (`AST constructor recursion depth mismatch`).
    """
    if data[:6] != b"\x93NUMPY" or data[6:8] not in (b"\1\0", b"\2\0"):
        raise ValueError(f"no npy file of format 1 or 2: it begins with {data[:8]!r}")
    begin = 10 if data[6] == 1 else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    if end > min(len(data), _MAX_HEADER_BYTES):
        raise ValueError(f"a header of {end} bytes, in {len(data)} bytes of data")
    text = data[begin:end].decode("latin1")
    header = _HEADER.fullmatch(text)
    if header is None:
        raise ValueError(f"the npy header is broken, or of a structured array: {text.strip()!r}")
    try:
        dtype = np.dtype(header["descr"])
        shape = tuple(int(each) for each in header["shape"].split(",") if each.strip())
    except (TypeError, ValueError) as error:
        raise ValueError(f"the npy header is broken: {error}") from error
    return shape, header["fortran"] == "True", dtype, end
