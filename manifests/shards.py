"""One shard of one version: what its record says of it, and its samples without parsing."""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fourmill.manifests.errors import ShardError
from fourmill.manifests.hashing import sha256_of
from fourmill.manifests.labels import Label, decode_label
from fourmill.manifests.packing import (
    BLOCK,
    NAME_BYTES,
    check_keys,
    member_headers,
    member_offsets,
)
from fourmill.manifests.snapshots import Record, VersionEntry
from fourmill.manifests.storage import Storage


def shard_name(index: int) -> str:
    """The file of a shard.

    >>> shard_name(7)
    'shard-000007.tar'
    """
    return f"shard-{index:06d}.tar"


class ShardRecord(Record):
    """A row of `_shards.parquet`.

    Attributes:
        bytes: size of the file.
        sha256: of the file.
        keys_sha256: of its keys, each followed by a line feed; equal in all versions.
        record_bytes: distance from one record to the next, where all have one size; else 0.
        data_offset: where a record's numbers begin, after its tar and npy headers; else 0.
        dtype: of the numbers, as npy writes it (`<i2`); `""` where sizes vary.
        shape: of one record's numbers.
        member_sizes: bytes of each member, where sizes vary; offsets follow from them.
        invalid_rows: rows that hold no label.
        failed: samples and source files that failed.
        inputs_sha256: digest of the producer and of the source shards that were read.
        statistics: whatever the producer counted; JSON.
        seconds: time that it took.
    """

    index: int
    samples: int
    bytes: int
    sha256: str
    keys_sha256: str
    record_bytes: int = 0
    data_offset: int = 0
    dtype: str = ""
    shape: tuple[int, ...] = ()
    member_sizes: tuple[int, ...] = ()
    invalid_rows: tuple[int, ...] = ()
    failed: int = 0
    inputs_sha256: str = ""
    producer_sha256: str = ""
    statistics: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    worker: str = ""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """For every row whether it holds a label, `[samples]`."""
        valid = np.ones(self.samples, bool)
        valid[list(self.invalid_rows)] = False
        return valid

    @property
    def content_sha256(self) -> str:
        """What later versions depend on: the file and the valid mask."""
        return content_digest(self.sha256, self.invalid_rows)


def content_digest(sha256: str, invalid_rows: "tuple[int, ...] | list[int]") -> str:
    """Digest of a shard's bytes and of which rows are valid."""
    return sha256_of([sha256, list(invalid_rows)]) if invalid_rows else sha256


class Shard:
    """One shard, opened when something of it is first read.

    Args:
        record: called once, when it is first needed: making a record of a row costs more than
            opening the file.
    """

    def __init__(
        self, storage: Storage, entry: VersionEntry, index: int, record: Callable[[], ShardRecord]
    ) -> None:
        self._storage = storage
        self._make_record = record
        self.entry = entry
        self.index = index
        self.path = f"{entry.folder}/{shard_name(index)}"

    @property
    def url(self) -> str:
        """Where the file is."""
        return self._storage.full(self.path)

    @property
    def local_path(self) -> Path | None:
        """Where the file lies on a disk of this machine; `None` in an object store."""
        return self._storage.local_path(self.path)

    def download(self, target: Path) -> None:
        """Copy the file to a disk of this machine.

        Raises:
            ShardError: it is not there.
            StoreError: the object store refuses, or cannot be reached.
        """
        try:
            self._storage.download(self.path, target)
        except FileNotFoundError as error:
            raise self._broken("the file is missing") from error

    @cached_property
    def record(self) -> ShardRecord:
        """What the shard table says of it."""
        return self._make_record()

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys, in order.

        Raises:
            ShardError: the file is not there, not as long as recorded, or no tar file; or a key is
                one that no shard may have, such as a path: files are named after keys.
        """
        keys = [name.split(".", 1)[0] for name in self.names]
        try:
            check_keys(keys)
        except ShardError as error:
            raise self._broken(str(error)) from error
        return keys

    @cached_property
    def names(self) -> list[str]:
        """Names of the members, `<key>.<extension>`, in order.

        Raises:
            ShardError: see `keys`.
        """
        fields = self._bytes[self._offsets[:, None] + np.arange(NAME_BYTES)]
        table = np.ascontiguousarray(fields).view(f"S{NAME_BYTES}").ravel()
        try:
            return [name.decode("ascii") for name in table.tolist()]
        except UnicodeDecodeError as error:
            raise self._broken(f"names of members are not readable: {error}") from error

    def payload(self, row: int) -> bytes:
        """The bytes of one member.

        Raises:
            ShardError: see `keys`.
        """
        start = int(self._offsets[row]) + BLOCK
        return self._bytes[start : start + self._size(row)].tobytes()

    def valid_payload(self, row: int) -> bytes | None:
        """The bytes of one member, or `None` where it holds no valid label.

        Raises:
            ShardError: see `keys`.
        """
        return None if row in self._invalid else self.payload(row)

    def label(self, row: int) -> Label | None:
        """The decoded label of one sample, or `None` where there is no valid one.

        Raises:
            ShardError: see `keys`.
            SampleError: its bytes are not what the modality is stored as.
        """
        if row in self._invalid:
            return None
        if self.record.record_bytes:
            return np.array(self.array()[row])
        return decode_label(self.entry.definition, self.payload(row), self.entry.encoding)

    def damaged_headers(self) -> list[int]:
        """Rows whose tar header is not the one that packing writes for their name and size.

        Raises:
            ShardError: see `keys`.
        """
        record = self.record
        sizes = [self._size(row) for row in range(record.samples)]
        found = self._bytes[self._offsets[:, None] + np.arange(BLOCK)]
        expected = member_headers(self.names, np.array(sizes, np.int64))
        return [int(row) for row in np.flatnonzero((found != expected).any(axis=1))]

    def array(self) -> NDArray[Any]:
        """All records as one read-only array `[samples, *shape]`: no copy, no parsing.

        Memory-mapped on a disk; rows of invalid samples hold the padding.

        Raises:
            ShardError: see `keys`; or the records have no common size.
        """
        return self._array

    @cached_property
    def _array(self) -> NDArray[Any]:
        record = self.record
        if not record.dtype:
            raise self._broken("its records vary in size; read them one by one with label(row)")
        dtype = np.dtype(record.dtype)
        shape = (record.samples, *record.shape)
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        within = np.empty(record.shape, dtype).strides
        return np.ndarray(
            shape,
            dtype,
            buffer=self._bytes.data,
            offset=record.data_offset,
            strides=(record.record_bytes, *within),
        )

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        try:
            data = self._storage.open_array(self.path)
        except FileNotFoundError as error:
            raise self._broken("the file is missing") from error
        if len(data) != self.record.bytes:
            raise self._broken(f"{len(data)} bytes, its record says {self.record.bytes}")
        return data

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        record = self.record
        if record.record_bytes:
            return np.arange(record.samples, dtype=np.int64) * record.record_bytes
        return member_offsets(np.array(record.member_sizes, np.int64))[:-1]

    @cached_property
    def _invalid(self) -> frozenset[int]:
        return frozenset(self.record.invalid_rows)

    def _size(self, row: int) -> int:
        record = self.record
        if not record.record_bytes:
            return record.member_sizes[row]
        values = math.prod(record.shape) * np.dtype(record.dtype).itemsize
        return record.data_offset - BLOCK + values

    def _broken(self, what: str) -> ShardError:
        return ShardError(f"{self.url}: {what}; `fourmill verify` says what to do")
