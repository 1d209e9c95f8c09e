"""Writing a version, shard by shard, from any number of processes, any of which may be killed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fourmill.manifests.errors import AlignmentError, DatasetError, ShardError
from fourmill.manifests.hashing import sha256_bytes, sha256_of
from fourmill.manifests.npy import npy_header
from fourmill.manifests.packing import BLOCK, keys_digest, member_bytes, pack_array, pack_members
from fourmill.manifests.shards import ShardRecord, shard_name
from fourmill.manifests.snapshots import Lineage, Record, VersionEntry
from fourmill.manifests.storage import Storage
from fourmill.manifests.tables import (
    Failure,
    ShardTable,
    contents_digest,
    find_shard_table,
    read_shard_table,
    write_tables,
)

RECORDS = "_records"
_PLAN = "version.json"
_DONE = ("index", "bytes", "producer_sha256", "inputs_sha256")  # what tells a finished shard


class Commit(Record):
    """The small file that a finished shard leaves behind until its version is complete."""

    record: ShardRecord
    failures: tuple[Failure, ...] = ()


class VersionWriter:
    """Writes the shards of one version. Picklable and small: hand it to any number of workers.

    Args:
        sources: the versions that are read, by modality.

    Attributes:
        folder: where the version is written.
        lineage: what it is to be.
    """

    def __init__(
        self, url: str, folder: str, lineage: Lineage, sources: Mapping[str, VersionEntry]
    ) -> None:
        self.url = url
        self.folder = folder
        self.lineage = lineage
        self._sources = dict(sources)
        self._has_begun = False

    @property
    def num_shards(self) -> int:
        """Shards of the version."""
        return self.lineage.shards

    def done(self, inputs: Sequence[str] | None = None) -> set[int]:
        """Shards that need no work: made by this producer of these inputs, and there.

        Args:
            inputs: for versions without sources, what each shard is made of, as text.
        """
        sizes = self._sizes()
        producer = self.lineage.producer.digest
        finished = self._finished_table()
        # columns, for making a record of each row would take longer than all the rest
        rows = list(zip(*map(finished.column, _DONE), strict=True)) if finished else []
        rows += [tuple(getattr(each, name) for name in _DONE) for each in self.records()]
        return {
            index
            for index, size, made_by, made_of in rows
            if index < self.num_shards
            and sizes.get(index) == size
            and made_by == producer
            and made_of == self._inputs(index, None if inputs is None else inputs[index])
        }

    def records(self) -> list[ShardRecord]:
        """Those of the shards that were committed since the version was begun, until it is
        complete."""
        return [each.record for each in self._commits()]

    def commit(
        self,
        index: int,
        keys: Sequence[str],
        payloads: Sequence[bytes] | None = None,
        array: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
        *,
        valid: Sequence[bool] | None = None,
        failures: Sequence[Failure] = (),
        statistics: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
        worker: str = "",
        inputs: str | None = None,
        extensions: Sequence[str] | None = None,
    ) -> ShardRecord:
        """Write one shard whole: its file, then its record.

        Args:
            payloads: bytes of the members, `empty_label` where there is none; or
            array: `[samples, *shape]` for records of one size, or parts of it one after another;
                anything where there is none.
            valid: one a sample; all by default.
            inputs: for versions without sources, what the shard is made of, as text.
            extensions: one a member, where they differ from the modality's.

        Raises:
            ShardError: keys that are not allowed, or counts that differ.
            AlignmentError: a source has other keys in this shard.
            DatasetError: another version was begun in this folder.
        """
        if (payloads is None) == (array is None):
            raise ShardError(f"{self._path(index)}: give either payloads or an array")
        if valid is not None and len(valid) != len(keys):
            raise ShardError(f"{self._path(index)}: {len(valid)} valid marks for {len(keys)} keys")
        extension = self.lineage.definition.extension
        layout: dict[str, Any]
        if array is not None:
            data: bytes | memoryview = pack_array(keys, extension, array)
            layout = _array_layout(array if isinstance(array, np.ndarray) else array[0])
        else:
            assert payloads is not None
            data = pack_members(keys, extensions or [extension], payloads)
            layout = {"member_sizes": tuple(map(len, payloads))}
        keys_sha256 = keys_digest(keys)
        self._refuse_other_keys(index, keys_sha256)
        # beside the writing, which waits for a disk or a network
        with ThreadPoolExecutor(1) as beside:
            digest = beside.submit(sha256_bytes, data)
            self._put_shard(index, data)
            record = ShardRecord(
                index=index,
                samples=len(keys),
                bytes=len(data),
                sha256=digest.result(),
                keys_sha256=keys_sha256,
                invalid_rows=tuple(row for row, each in enumerate(valid or ()) if not each),
                failed=len(failures),
                inputs_sha256=self._inputs(index, inputs),
                producer_sha256=self.lineage.producer.digest,
                statistics=dict(statistics or {}),
                seconds=seconds,
                worker=worker,
                **layout,
            )
        commit = Commit(record=record, failures=tuple(failures))
        place = _record_path(self.folder, index)
        self._storage.write(place, commit.model_dump_json().encode())
        return record

    def finish(self) -> VersionEntry:
        """Gather the shards' records into the version's tables, and say what was made.

        Raises:
            DatasetError: shards are missing, or one that was made again came out different.
        """
        sizes = self._sizes()
        commits = {
            each.record.index: each
            for each in self._commits()
            if each.record.producer_sha256 == self.lineage.producer.digest
            and sizes.get(each.record.index) == each.record.bytes
        }
        # last: another writer that finishes removes its records after writing the tables
        finished = self._finished_table()
        if finished is not None:
            return self._confirm(finished, commits, sizes)
        missing = [index for index in range(self.num_shards) if index not in commits]
        if missing:
            raise DatasetError(
                f"{self._storage.full(self.folder)}: {len(missing)} of {self.num_shards} shards "
                f"are missing, the first is {missing[0]}: run the step again"
            )
        ordered = [commits[index] for index in range(self.num_shards)]
        records = [each.record for each in ordered]
        entry = VersionEntry(
            **self.lineage.model_dump(),
            folder=self.folder,
            samples=sum(each.samples for each in records),
            failed=sum(each.failed for each in records),
            bytes=sum(each.bytes for each in records),
            content_sha256=contents_digest([each.content_sha256 for each in records]),
        )
        failures = [(each.record.index, failure) for each in ordered for failure in each.failures]
        write_tables(self._storage, entry, records, failures)
        self._storage.remove(f"{self.folder}/{RECORDS}")
        return entry

    def _confirm(
        self, finished: ShardTable, commits: Mapping[int, Commit], sizes: Mapping[int, int]
    ) -> VersionEntry:
        """A version that was complete once: shards that were made again must be what they were."""
        for index, size in enumerate(finished.column("bytes")):
            place = self._storage.full(self._path(index))
            made = commits.get(index)
            if made is not None and made.record.content_sha256 != finished.contents[index]:
                raise DatasetError(
                    f"{place}: made again, it came out different from what the dataset says it "
                    f"was; label into a new version instead"
                )
            if sizes.get(index) != size:
                raise DatasetError(f"{place}: missing or not whole: run the step again")
        self._storage.remove(f"{self.folder}/{RECORDS}")
        return finished.entry

    def _put_shard(self, index: int, data: "bytes | memoryview") -> None:
        self._begin()
        # the record must not vouch for bytes that it has not seen
        self._storage.remove_file(_record_path(self.folder, index))
        self._storage.write(self._path(index), data)

    def _begin(self) -> None:
        """Say what the folder is to hold before anything else is in it."""
        if self._has_begun:
            return
        begun = read_plan(self._storage, self.folder)
        if begun is None:
            plan = self.lineage.model_dump_json().encode()
            self._storage.swap(_plan_path(self.folder), None, plan)
            begun = read_plan(self._storage, self.folder)
        if begun is None or begun.identity != self.lineage.identity:
            raise DatasetError(
                f"{self._storage.full(self.folder)}: somebody else began another version here: "
                f"run the step again, so that it finds a folder of its own"
            )
        self._has_begun = True

    def _refuse_other_keys(self, index: int, keys_sha256: str) -> None:
        for name, source in self._sources.items():
            expected = _source_columns(self.url, source.folder, source.content_sha256)[1]
            if expected[index] != keys_sha256:
                raise AlignmentError(
                    f"{self._path(index)}: its keys are not those of {name} "
                    f"({source.folder}), or not in the same order"
                )

    def _inputs(self, index: int, inputs: str | None) -> str:
        contents = {
            name: _source_columns(self.url, source.folder, source.content_sha256)[0][index]
            for name, source in self._sources.items()
        }
        return sha256_of([self.lineage.producer.digest, contents, inputs])

    def _path(self, index: int) -> str:
        return f"{self.folder}/{shard_name(index)}"

    @property
    def _storage(self) -> Storage:
        return _open(self.url)

    def _sizes(self) -> dict[int, int]:
        """Bytes of the shards that are there."""
        files = self._storage.files(self.folder)
        return {
            index: files[name].bytes
            for index in range(self.num_shards)
            if (name := shard_name(index)) in files
        }

    def _commits(self) -> list[Commit]:
        return read_commits(self._storage, self.folder)

    def _finished_table(self) -> ShardTable | None:
        table = find_shard_table(self._storage, self.folder)
        return table if table and table.entry.identity == self.lineage.identity else None


def read_plan(storage: Storage, folder: str) -> Lineage | None:
    """What an unfinished version is to be; `None` if there is none in this folder."""
    try:
        return Lineage.model_validate_json(storage.read(_plan_path(folder)))
    except (FileNotFoundError, ValidationError):
        return None


def read_commits(storage: Storage, folder: str) -> list[Commit]:
    """Records of the shards of an unfinished version; what is not readable counts as not there."""
    names = [name for name in storage.files(f"{folder}/{RECORDS}") if name != _PLAN]
    commits = []
    for data in storage.read_many([f"{folder}/{RECORDS}/{name}" for name in names]):
        try:
            commits.append(Commit.model_validate_json(data))
        except ValidationError:  # of an older fourmill: the shard is made again
            continue
    return commits


def _plan_path(folder: str) -> str:
    return f"{folder}/{RECORDS}/{_PLAN}"


def _record_path(folder: str, index: int) -> str:
    return f"{folder}/{RECORDS}/{shard_name(index)}.json"


def _array_layout(array: NDArray[Any]) -> dict[str, Any]:
    dtype = array.dtype.newbyteorder("<")
    shape = tuple(map(int, array.shape[1:]))
    offset = BLOCK + len(npy_header(dtype, shape))
    content = offset - BLOCK + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return {
        "record_bytes": member_bytes(content),
        "data_offset": offset,
        "dtype": dtype.str,
        "shape": shape,
    }


@lru_cache(maxsize=4)
def _open(url: str) -> Storage:
    return Storage(url)


@lru_cache(maxsize=64)
def _source_columns(url: str, folder: str, content_sha256: str) -> tuple[list[str], list[str]]:
    """Content digests and key digests of a source's shards; the content names them for ever."""
    table = read_shard_table(_open(url), folder)
    return table.contents, table.column("keys_sha256")
