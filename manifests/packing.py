"""Shards as bytes: ustar archives that depend on content alone, written without per-sample work.

The bytes are those of Python's `tarfile` in its ustar format, for members `<key>.<extension>` with
mode 0644, owner 0, empty owner names and time 0, and with tar's usual end: zeros up to a multiple
of 10,240 bytes, two blocks at least.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import ShardError
from fourmill.manifests.hashing import sha256_bytes
from fourmill.manifests.npy import npy_header

BLOCK = 512
END = 10_240
NAME_BYTES = 100
_MAX_MEMBER_BYTES = 8**11
_KEYS = re.compile(r"(?:[0-9A-Za-z_-]+\n)*")
_EXTENSION = re.compile(r"[0-9a-z]+(?:\.[0-9a-z]+)*")
_CHECKSUM = slice(148, 156)


def _empty_header() -> NDArray[np.uint8]:
    """Without a name, a size and a checksum."""
    header = bytearray(BLOCK)
    header[100:108] = b"0000644\0"  # mode
    header[108:116] = header[116:124] = b"0000000\0"  # owner, group
    header[136:148] = b"00000000000\0"  # time
    header[_CHECKSUM] = b" " * 8  # counts as spaces while it is computed
    header[156:157] = b"0"  # an ordinary file
    header[257:265] = b"ustar\x0000"
    return np.frombuffer(bytes(header), np.uint8)


_HEADER = _empty_header()
_HEADER_SUM = int(_HEADER.sum(dtype=np.int64))


def member_bytes(size: int) -> int:
    """Bytes that a member of this size takes in an archive, header included.

    >>> member_bytes(0), member_bytes(1), member_bytes(512), member_bytes(513)
    (512, 1024, 1024, 1536)
    """
    return BLOCK + -(-size // BLOCK) * BLOCK


def member_offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each member's header begins, and where the last member ends, `[members + 1]`."""
    steps = BLOCK + -(-sizes // BLOCK) * BLOCK
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)])


def archive_bytes(content: int) -> int:
    """Size of an archive whose members take `content` bytes.

    >>> archive_bytes(0), archive_bytes(9_216), archive_bytes(9_728)
    (10240, 10240, 20480)
    """
    return -(-(content + 2 * BLOCK) // END) * END


def check_keys(keys: Sequence[str]) -> None:
    """Refuse keys that are not made of `[0-9A-Za-z_-]`, or that a shard has twice.

    Raises:
        ShardError: it names the first such key.
    """
    if not _KEYS.fullmatch("".join(f"{key}\n" for key in keys)):
        wrong = next(key for key in keys if not _KEYS.fullmatch(f"{key}\n") or "\n" in key)
        raise ShardError(f"key {wrong!r} is not made of letters, digits, '_' and '-' alone")
    if len(set(keys)) != len(keys):
        seen: set[str] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ShardError(f"key {twice!r} is twice in one shard; keys must be unique")


def keys_digest(keys: Sequence[str]) -> str:
    """SHA-256 of the keys in order, each followed by a line feed."""
    return sha256_bytes("".join(f"{key}\n" for key in keys).encode())


def pack_array(
    keys: Sequence[str], extension: str, array: NDArray[Any] | Sequence[NDArray[Any]]
) -> memoryview:
    """An archive of npy members, one row of `array` each, all of one size.

    Args:
        keys: one a row.
        array: `[samples, *shape]` of numbers, stored little-endian; or parts of it, one after
            another, which then need not be copied together first.

    Raises:
        ShardError: keys that are not allowed, or not as many as rows; parts that differ.
    """
    parts = [array] if isinstance(array, np.ndarray) else list(array)
    count = sum(map(len, parts))
    _check(keys, count)
    kinds = {(each.dtype, each.shape[1:]) for each in parts}
    if len(kinds) != 1:
        raise ShardError(f"found parts of {len(kinds)} types and shapes, expected one")
    dtype, shape = parts[0].dtype.newbyteorder("<"), parts[0].shape[1:]
    header = npy_header(dtype, shape)
    start = BLOCK + len(header)
    stop = start + math.prod(shape) * dtype.itemsize
    stride = member_bytes(stop - BLOCK)
    whole = np.zeros(archive_bytes(count * stride), np.uint8)
    members = whole[: count * stride].reshape(count, stride)
    members[:, :BLOCK] = member_headers(
        _names(keys, [extension]), np.full(count, stop - BLOCK, np.int64)
    )
    members[:, BLOCK:start] = np.frombuffer(header, np.uint8)
    row = 0
    for part in parts:
        if part.size:
            rows = np.ascontiguousarray(part, dtype).reshape(len(part), -1)
            members[row : row + len(part), start:stop] = rows.view(np.uint8)
        row += len(part)
    return whole.data


def pack_members(
    keys: Sequence[str], extensions: Sequence[str], payloads: Sequence[bytes]
) -> bytes:
    """An archive of members of any sizes.

    Args:
        extensions: one a member, or a single one for all.

    Raises:
        ShardError: keys or extensions that are not allowed, or not as many as payloads.
    """
    _check(keys, len(payloads))
    sizes = np.fromiter(map(len, payloads), np.int64, len(payloads))
    if sizes.size and int(sizes.max()) >= _MAX_MEMBER_BYTES:
        raise ShardError(f"a member of {int(sizes.max()):,} bytes; tar holds less than 8 GiB each")
    headers = member_headers(_names(keys, extensions), sizes).tobytes()
    parts: list[bytes] = []
    zeros = bytes(END)
    for row, payload in enumerate(payloads):
        parts += (headers[row * BLOCK : (row + 1) * BLOCK], payload, zeros[: -len(payload) % BLOCK])
    content = int(member_offsets(sizes)[-1])
    end = archive_bytes(content) - content
    return b"".join([*parts, bytes(end)])


def _check(keys: Sequence[str], count: int) -> None:
    if len(keys) != count:
        raise ShardError(f"{len(keys)} keys for {count} records")
    check_keys(keys)


def member_headers(names: Sequence[str], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The tar headers of members, `[members, 512]`."""
    headers = np.empty((len(names), BLOCK), np.uint8)
    headers[:] = _HEADER
    encoded = np.array(names, f"S{NAME_BYTES}").view(np.uint8).reshape(len(names), NAME_BYTES)
    size = _octal(sizes, 11)
    headers[:, :NAME_BYTES] = encoded
    headers[:, 124:135] = size
    # all else is as in the empty header, whose sum is known
    sums = _HEADER_SUM + encoded.sum(axis=1, dtype=np.int64) + size.sum(axis=1, dtype=np.int64)
    headers[:, 148:154] = _octal(sums, 6)
    headers[:, 154] = 0
    return headers


def _names(keys: Sequence[str], extensions: Sequence[str]) -> list[str]:
    for extension in set(extensions):
        if not _EXTENSION.fullmatch(extension):
            raise ShardError(f"{extension!r} is no extension: small letters, digits and inner dots")
    if len(extensions) == 1:
        names = [f"{key}.{extensions[0]}" for key in keys]
    elif len(extensions) == len(keys):
        names = [f"{key}.{each}" for key, each in zip(keys, extensions, strict=True)]
    else:
        raise ShardError(f"{len(extensions)} extensions for {len(keys)} keys")
    longest = max(names, key=len, default="")
    if len(longest) > NAME_BYTES:
        raise ShardError(f"name {longest!r} is longer than {NAME_BYTES} bytes")
    return names


def _octal(values: NDArray[np.int64], digits: int) -> NDArray[np.uint8]:
    places = 3 * np.arange(digits - 1, -1, -1)
    return (((values[:, None] >> places) & 7) + ord("0")).astype(np.uint8)
