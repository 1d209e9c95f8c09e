"""The npy format: headers that are made once for many records, and arrays from untrusted bytes."""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray


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
    """The array of an npy file, read-only; no object is ever unpickled.

    Raises:
        ValueError: the bytes are no npy file, hold Python objects, or are not as many as the
            header says.
    """
    buffer = io.BytesIO(data)
    version = npy_format.read_magic(buffer)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format {version} is not 1.0 or 2.0")
    read = npy_format.read_array_header_1_0 if version == (1, 0) else _read_header_2
    shape, is_fortran, dtype = read(buffer)
    if dtype.hasobject:
        raise ValueError("the array holds Python objects, which are never read")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - buffer.tell() != expected:
        raise ValueError(f"{len(data) - buffer.tell()} bytes of data, the header says {expected}")
    flat = np.frombuffer(data, dtype, offset=buffer.tell()) if expected else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _read_header_2(buffer: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return npy_format.read_array_header_2_0(buffer)
