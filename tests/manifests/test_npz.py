"""Sequences of vectors: what 4M's reference reads, always the same bytes, never unpickled."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from fourmill.manifests.npz import decode_sequence, encode_sequence

VECTORS = np.arange(6, dtype=np.float16).reshape(2, 3)


def saved(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    save(buffer, **arrays)
    return buffer.getvalue()


def test_numpy_reads_what_is_written() -> None:
    stored = encode_sequence(VECTORS)
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["emb"], VECTORS[None])
        assert arrays["mask_valid"].tolist() == [[True, True]]


@pytest.mark.parametrize("compressed", [False, True])
def test_what_numpy_wrote_is_read_and_padding_left_out(compressed: bool) -> None:
    emb = np.stack([VECTORS, VECTORS + 1]).astype(np.float32)
    data = saved(compressed, emb=emb, mask_valid=np.array([[1, 0], [1, 1]]))
    np.testing.assert_array_equal(decode_sequence(data), VECTORS[:1])


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("emb.npy", bytes(257 * 2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"nothing", "no npz file"),
        (encode_sequence(VECTORS)[:-30], "no npz file"),
        (encode_sequence(VECTORS).replace(b"\x00\x3c", b"\x00\x3d"), "no npz file: Bad CRC"),
        (saved(emb=VECTORS[None]), "expected emb and mask_valid"),
        (saved(emb=VECTORS, mask_valid=np.ones((1, 2))), r"expected \[sequences, n, C\]"),
        (saved(emb=np.array([[[None]]]), mask_valid=np.ones((1, 1))), "Python objects"),
        (saved(emb=np.ones((1, 1, 1), int), mask_valid=np.ones((1, 1))), "floating-point"),
        (bomb(), "would be more than"),
    ],
)  # fmt: skip
def test_what_is_no_sequence_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decode_sequence(data)
