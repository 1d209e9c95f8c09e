"""The npy format: headers that are made once for many records, and arrays from untrusted bytes."""

import ast
import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

_MAX_HEADER_BYTES = 10_000  # as NumPy


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

    NumPy's own reader repairs headers of Python 2 by parsing them as code, which ends in errors
    and warnings of many kinds when the bytes are broken.
    """
    if data[:6] != b"\x93NUMPY" or data[6:8] not in (b"\1\0", b"\2\0"):
        raise ValueError(f"no npy file of format 1 or 2: it begins with {data[:8]!r}")
    begin = 10 if data[6] == 1 else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    if end > min(len(data), _MAX_HEADER_BYTES):
        raise ValueError(f"a header of {end} bytes, in {len(data)} bytes of data")
    try:
        header = ast.literal_eval(data[begin:end].decode("latin1").strip())
        shape, is_fortran = header["shape"], header["fortran_order"]
        dtype = npy_format.descr_to_dtype(header["descr"])
    except (SyntaxError, TypeError, KeyError, MemoryError) as error:
        raise ValueError(f"the npy header is broken: {error}") from error
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"the npy header has the shape {shape!r}")
    return shape, bool(is_fortran), dtype, end
