"""Shards as memory: any record of any shard by one multiplication, many by one indexing."""

import hashlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, ShardError
from fourmill.manifests.modalities import Modality
from fourmill.manifests.shards import Shard
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.cache import ShardCache

Numbers = Int64[np.ndarray, " batch"]

_MOST_MAPS = 48_000  # of a loader: Linux lets a process have 65,530
_TOUCHED_EVERY = 60.0  # seconds


@dataclass(frozen=True)
class Places:
    """Rows of some shards.

    Attributes:
        shard: number of each row's shard, among those.
        local: number of the row in its shard.
    """

    rows: Numbers
    shard: Numbers
    local: Numbers


class Rows:
    """The rows of some shards of a snapshot, as one sequence.

    Attributes:
        dataset: as the snapshot has it.
        shards: their numbers in the snapshot.
        starts: row at which each shard begins, and at last the number of rows.
    """

    def __init__(self, dataset: Dataset, snapshot: Snapshot, shards: Sequence[int]) -> None:
        is_current = not dataset.is_empty and dataset.head.id == snapshot.id
        self.dataset = dataset if is_current else dataset.at(snapshot.id)
        self.shards = np.array(shards, np.int64)
        counts = np.array(self.dataset.shard_column(min(snapshot.modalities), "samples"), np.int64)
        self.starts = np.cumsum([0, *counts[self.shards]])
        self._first_ids = (np.cumsum(counts) - counts)[self.shards]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, rows: Numbers) -> Places:
        """Where rows lie.

        Raises:
            IndexError: there are no such rows.
        """
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()}: there are {len(self)}")
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        return Places(rows, shard, rows - self.starts[shard])

    def ids(self, places: Places) -> Numbers:
        """The rows' numbers in the whole snapshot: what masks and crops are keyed by."""
        ids: NDArray[np.int64] = self._first_ids[places.shard] + places.local
        return ids

    def shard(self, modality: str, number: int) -> Shard:
        """One of the shards."""
        return self.dataset.shard(modality, int(self.shards[number]))

    def column(self, modality: str, field: str) -> list[Any]:
        """One field of the records of the shards."""
        values = self.dataset.shard_column(modality, field)
        return [values[each] for each in self.shards.tolist()]


class Files:
    """The files of one version's shards, mapped when first read; of a store, by way of a cache.

    Args:
        versions: how many share the maps that a process can have.
    """

    def __init__(
        self, rows: Rows, modality: str, cache: ShardCache | None, versions: int = 1
    ) -> None:
        self.rows = rows
        self.modality = modality
        self.bytes = np.array(rows.column(modality, "bytes"), np.int64)
        self.sha256: list[str] = rows.column(modality, "sha256")
        count = len(rows.shards)
        is_local = not count or rows.shard(modality, 0).local_path is not None
        self._cache = None if is_local else cache
        if self._cache is not None:
            self._cache.folder.mkdir(parents=True, exist_ok=True)
        self._most = max(1, _MOST_MAPS // versions)
        self._lock = threading.Lock()
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._addresses = np.zeros(count, np.int64)  # 0 where it is not mapped
        self._used = np.zeros(count, np.float64)  # when it last was
        self._stamp = 0
        invalid = rows.column(modality, "invalid_rows")
        starts = rows.starts[:-1].tolist()
        self._invalid = np.array(
            [
                start + row
                for start, own in zip(starts, invalid, strict=True)
                for row in sorted(own)
            ],
            np.int64,
        )

    @property
    def is_local(self) -> bool:
        """Whether the files lie on a disk of this machine."""
        return self._cache is None

    def valid(self, rows: Numbers) -> Bool[np.ndarray, " batch"]:
        """Whether rows hold labels, as the shard table says."""
        if not self._invalid.size:
            return np.ones(len(rows), bool)
        nearest = np.searchsorted(self._invalid, rows).clip(max=self._invalid.size - 1)
        valid: NDArray[np.bool_] = self._invalid[nearest] != rows
        return valid

    def begin(self, shards: Numbers) -> "list[Future[None]]":
        """Have those shards fetched that are neither mapped nor on this machine."""
        if self._cache is None:
            return []
        missing = np.unique(shards[self._addresses[shards] == 0]).tolist()
        return [
            self._cache.begin(self.rows.shard(self.modality, each), self.sha256[each])
            for each in missing
        ]

    @contextmanager
    def mapped(self, shards: Numbers) -> Iterator[Numbers]:
        """Where shards begin in memory, for a while.

        Raises:
            ShardError: a file is missing, or not what the manifest says.
            StoreError: the store refuses, or cannot be reached.
        """
        wait(self.begin(shards))
        with self._lock:
            self._map(shards)
            yield self._addresses[shards]

    def open(self, shard: int) -> NDArray[np.uint8]:
        """The bytes of one shard.

        Raises:
            ShardError, StoreError: see `mapped`.
        """
        with self.mapped(np.array([shard])):
            return self._maps[shard]

    def verify(self, shard: int) -> None:
        """Read a file whole, and compare it with the manifest.

        Raises:
            ShardError: it is not what the manifest says.
        """
        found = hashlib.sha256(self.open(shard).data).hexdigest()
        if found != self.sha256[shard]:
            raise self.broken(shard, f"SHA-256 {found[:12]}…, recorded {self.sha256[shard][:12]}…")

    def broken(self, shard: int, what: str) -> ShardError:
        """A file is not what the manifest says."""
        url = self.rows.shard(self.modality, shard).url
        return ShardError(
            f"{url}: not what the manifest says ({what}): `fourmill verify --deep` finds all such "
            f"shards, and says what to do"
        )

    def _map(self, shards: Numbers) -> None:
        now = time.monotonic()
        if self._cache is not None:
            self._let_go_of_what_went(self._cache)
            for each in np.unique(shards[now - self._used[shards] > _TOUCHED_EVERY]).tolist():
                self._cache.touch(self.sha256[each])
        missing = np.unique(shards[self._addresses[shards] == 0])
        for each in missing.tolist():
            data = self._opened(each)
            self._maps[each] = data
            self._addresses[each] = data.ctypes.data
        self._used[shards] = now
        if len(self._maps) > self._most:
            mapped = np.array(list(self._maps), np.int64)
            oldest = mapped[self._used[mapped].argsort()]
            for each in oldest[: len(mapped) - self._most].tolist():
                if self._used[each] < now:
                    self._forget(each)

    def _opened(self, shard: int) -> NDArray[np.uint8]:
        own = self.rows.shard(self.modality, shard)
        if self._cache is None:
            assert own.local_path is not None
            try:
                return self._mapped_file(shard, own.local_path)
            except FileNotFoundError as error:
                raise self.broken(shard, "the file is missing") from error
        while True:
            try:
                return self._mapped_file(shard, self._cache.path(self.sha256[shard]))
            except FileNotFoundError:  # another process made room, or fetching it failed
                self._cache.fetch(own, self.sha256[shard])

    def _mapped_file(self, shard: int, path: Path) -> NDArray[np.uint8]:
        size, recorded = path.stat().st_size, int(self.bytes[shard])
        if size != recorded:
            raise self.broken(shard, f"{size} bytes, its record says {recorded}")
        try:  # Python's own maps keep their file open, and most processes may have 1024 of them
            data: NDArray[np.uint8] = torch.from_file(
                str(path), shared=False, size=size, dtype=torch.uint8
            ).numpy()
        except RuntimeError:
            path.stat()  # has it gone meanwhile?
            raise
        return data

    def _let_go_of_what_went(self, cache: ShardCache) -> None:
        """What was removed from the cache takes room until nobody maps it any more."""
        stamp = cache.stamp
        if stamp != self._stamp:
            there = cache.names()
            for each in [each for each in self._maps if self.sha256[each] not in there]:
                self._forget(each)
            self._stamp = stamp

    def _forget(self, shard: int) -> None:
        del self._maps[shard]
        self._addresses[shard] = 0


class Column:
    """Records of one size: one array over all shards of a version.

    Attributes:
        files: that hold it.
        dtype: of the numbers.
        shape: of one record.

    Raises:
        ShardError: records that are not of one size, type and shape, or not within their file.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        fields = ("dtype", "shape", "record_bytes", "data_offset")
        columns = (files.rows.column(files.modality, each) for each in fields)
        found = {(dtype, tuple(shape), *rest) for dtype, shape, *rest in zip(*columns, strict=True)}
        if len(found) > 1 or any(not dtype for dtype, *_ in found):
            folder = files.rows.dataset.modalities[files.modality].folder
            raise ShardError(
                f"{files.rows.dataset.url}/{folder}: records of different sizes ({sorted(found)}): "
                f"make {files.modality} again"
            )
        dtype, self.shape, self._record_bytes, self._data_offset = next(iter(found))
        self.dtype = np.dtype(dtype)
        lasts = np.diff(files.rows.starts) - 1
        size = math.prod(self.shape) * self.dtype.itemsize
        ends = self._data_offset + lasts * self._record_bytes + size
        # from here on nobody looks: what is read is wherever these numbers lead
        is_within = self._data_offset >= 0 and self._record_bytes >= size > 0
        for shard in np.flatnonzero((lasts >= 0) & ~(is_within & (ends <= files.bytes))).tolist():
            raise files.broken(shard, "its records would lie outside of it")

    @property
    def num_crops(self) -> int:
        """Crops of each sample; 0 where records do not depend on the crop."""
        return self.shape[0] if len(self.shape) > 1 else 0

    def read(self, places: Places, crop: Numbers) -> NDArray[Any]:
        """The part of one crop of each record, `[batch, length]`.

        Raises:
            IndexError: there are no such crops.
            ShardError, StoreError: see `Files.mapped`.
        """
        length = self.shape[-1] * self.dtype.itemsize
        offset = self._data_offset + places.local * self._record_bytes
        if self.num_crops:
            if crop.size and not 0 <= crop.min() <= crop.max() < self.num_crops:
                raise IndexError(f"crops {crop.min()} to {crop.max()}: there are {self.num_crops}")
            offset += crop * length
        with self.files.mapped(places.shard) as begins:
            found = _memory(length)[begins + offset - 1]
        records: NDArray[Any] = found.view(self.dtype)
        return records

    def whole(self, shard: int) -> NDArray[Any]:
        """All records of one shard, `[samples, *shape]`."""
        starts = self.files.rows.starts
        shape = (int(starts[shard + 1] - starts[shard]), *self.shape)
        within = np.empty(self.shape, self.dtype).strides
        return np.ndarray(
            shape, self.dtype, self.files.open(shard).data, self._data_offset,
            (self._record_bytes, *within),
        )  # fmt: skip


class Tokens:
    """The tokens of one modality.

    Raises:
        ConfigError: their number is not that of the modality.
        ShardError: see `Column`.
    """

    def __init__(self, modality: Modality, files: Files) -> None:
        self.modality = modality
        self.column = Column(files)
        length = self.column.shape[-1]
        if length != (modality.max_tokens or length):
            raise ConfigError(
                f"{modality.name}: {length} tokens a sample, defined as {modality.max_tokens}: "
                f"tokenize again"
            )

    def read(self, places: Places, crop: Numbers) -> NDArray[np.integer]:
        """Tokens of one crop of each row, `[batch, length]`; zeros or padding without a label.

        Raises:
            ConfigError: ids outside of the vocabulary.
            ShardError, StoreError: see `Files.mapped`.
        """
        tokens = self.column.read(places, crop)
        if self._has_unknown(tokens):
            row = int((tokens.view(self._unsigned) >= self.modality.vocab_size).any(1).argmax())
            raise self._unknown(tokens[row], int(places.shard[row]), int(places.local[row]))
        return tokens

    def check(self, shard: int) -> None:
        """Read one shard whole.

        Raises:
            ConfigError: ids outside of the vocabulary.
            ShardError: its bytes are not those of the manifest.
        """
        self.column.files.verify(shard)
        records = self.column.whole(shard)
        if self._has_unknown(records):
            within = tuple(range(1, records.ndim))
            is_wrong = (records < 0) | (records >= self.modality.vocab_size)
            row = int(is_wrong.any(within).argmax())
            raise self._unknown(records[row], shard, row)

    @property
    def _unsigned(self) -> "np.dtype[Any]":
        return np.dtype(f"u{self.column.dtype.itemsize}")

    def _has_unknown(self, tokens: NDArray[Any]) -> bool:
        # what is below 0 is large without its sign
        return bool(tokens.size and tokens.view(self._unsigned).max() >= self.modality.vocab_size)

    def _unknown(self, tokens: NDArray[Any], shard: int, row: int) -> ConfigError:
        url = self.column.files.rows.shard(self.modality.name, shard).url
        return ConfigError(
            f"{url}: sample {row} has tokens from {tokens.min()} to {tokens.max()}, the vocabulary "
            f"of {self.modality.name} has {self.modality.vocab_size}: tokenize again"
        )


@lru_cache(maxsize=64)
def _memory(length: int) -> NDArray[np.uint8]:
    """The memory of this process by address - 1, `[address, length]`.

    Wherever shards are mapped, one indexing operation reaches them all: a batch from a thousand
    shards is read as fast as one from one shard.
    """
    interface = {
        "version": 3, "typestr": "|u1", "data": (1, True),
        "shape": (2**48, length), "strides": (1, 1),
    }  # fmt: skip
    return np.asarray(SimpleNamespace(__array_interface__=interface))
