"""The npz format: named arrays in one file; equal arrays, equal bytes; nothing is unpickled."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float16
from numpy.typing import NDArray

from fourmill.manifests.npy import decode_npy, encode_npy

_MAX_BYTES = 256 * 2**20  # of one array when it is unpacked
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
# NotImplementedError and RuntimeError: packed or encrypted in a way that zipfile does not read
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError,
)  # fmt: skip


def encode_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """What `np.savez` would write, without times and without what depends on the machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _LONG_AGO)
            member.create_system = _UNIX
            archive.writestr(member, encode_npy(array))
    return buffer.getvalue()


def decode_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name, read-only, packed or not; no object is ever unpickled.

    Raises:
        ValueError: the bytes are no npz file, are damaged, or hold more than 256 MiB or objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            large = [each.filename for each in archive.infolist() if each.file_size > _MAX_BYTES]
            if large:
                raise ValueError(f"{large[0]} would be more than {_MAX_BYTES:,} bytes")
            members = {each: archive.read(each) for each in archive.namelist()}
    except _BROKEN as error:
        raise ValueError(f"no npz file: {error}") from error
    return {name.removesuffix(".npy"): decode_npy(each) for name, each in members.items()}


def encode_sequence(vectors: Float16[np.ndarray, "n C"]) -> bytes:
    """A sequence of vectors as 4M's reference reads it: `emb` [1, n, C], `mask_valid` [1, n]."""
    return encode_npz({"emb": vectors[None], "mask_valid": np.ones((1, len(vectors)), bool)})


def decode_sequence(data: bytes) -> Float16[np.ndarray, "n C"]:
    """The valid vectors of the first sequence.

    Raises:
        ValueError: no such file, or its two arrays do not fit together.
    """
    arrays = decode_npz(data)
    if not {"emb", "mask_valid"} <= arrays.keys():
        raise ValueError(f"found {', '.join(arrays) or 'nothing'}, expected emb and mask_valid")
    vectors, valid = arrays["emb"], arrays["mask_valid"]
    if vectors.ndim != 3 or valid.shape != vectors.shape[:2] or not len(vectors):
        raise ValueError(
            f"found emb {list(vectors.shape)} and mask_valid {list(valid.shape)}, expected "
            "[sequences, n, C] and [sequences, n]"
        )
    if vectors.dtype.kind != "f":
        raise ValueError(f"found emb of {vectors.dtype}, expected floating-point numbers")
    found: NDArray[np.float16] = vectors[0][valid[0].astype(bool)].astype(np.float16)
    return found
