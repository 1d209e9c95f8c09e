"""The two tables of a version: `_shards.parquet` and `_failed.parquet`."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from fourmill.manifests.errors import DatasetError
from fourmill.manifests.hashing import sha256_of
from fourmill.manifests.shards import ShardRecord, content_digest
from fourmill.manifests.snapshots import VersionEntry
from fourmill.manifests.storage import Storage

SHARD_TABLE = "_shards.parquet"
FAILED_TABLE = "_failed.parquet"
_ENTRY = b"fourmill.version"

_SHARD_SCHEMA = pa.schema([
    ("index", pa.int64()), ("samples", pa.int64()), ("bytes", pa.int64()),
    ("sha256", pa.string()), ("keys_sha256", pa.string()), ("record_bytes", pa.int64()),
    ("data_offset", pa.int64()), ("dtype", pa.string()), ("shape", pa.list_(pa.int64())),
    ("member_sizes", pa.list_(pa.int64())), ("invalid_rows", pa.list_(pa.int64())),
    ("failed", pa.int64()), ("inputs_sha256", pa.string()), ("producer_sha256", pa.string()),
    ("statistics", pa.string()), ("seconds", pa.float64()), ("worker", pa.string()),
])  # fmt: skip
_FAILED_SCHEMA = pa.schema([
    ("shard", pa.int64()), ("key", pa.string()), ("stage", pa.string()), ("error", pa.string()),
    ("message", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A row of `_failed.parquet`.

    Attributes:
        key: of the sample; of a source file that never became a sample, its name there.
        stage: what was being done.
        error: the error's class.
        message: what was found and what was expected.
    """

    key: str
    stage: str
    error: str
    message: str


class ShardTable:
    """The shards of a complete version, in order."""

    def __init__(self, table: pa.Table, entry: VersionEntry) -> None:
        self._table = table
        self.entry = entry

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def record(self, index: int) -> ShardRecord:
        """The record of one shard."""
        row: dict[str, Any] = self._table.slice(index, 1).to_pylist()[0]
        return ShardRecord.model_validate(row | {"statistics": json.loads(row["statistics"])})

    def column(self, name: str) -> list[Any]:
        """One field of all shards."""
        return list(self._table.column(name).to_pylist())

    def member_sizes(self, index: int) -> NDArray[np.int64]:
        """Bytes of each member of a shard, where they vary, without a copy."""
        values: NDArray[np.int64] = self._table.column("member_sizes")[index].values.to_numpy()
        return values

    @cached_property
    def statistics(self) -> list[dict[str, Any]]:
        """What the producer counted in every shard."""
        return [json.loads(each) for each in self.column("statistics")]

    @cached_property
    def contents(self) -> list[str]:
        """Digest of every shard's bytes and valid mask."""
        pairs = zip(self.column("sha256"), self.column("invalid_rows"), strict=True)
        return [content_digest(sha256, rows) for sha256, rows in pairs]


def contents_digest(contents: Sequence[str]) -> str:
    """The content digest of a version whose shards have these."""
    return sha256_of(list(contents))


def write_tables(
    storage: Storage,
    entry: VersionEntry,
    records: Sequence[ShardRecord],
    failures: Sequence[tuple[int, Failure]],
) -> None:
    """Write both tables of a version; the shard table last, for it makes the version complete."""
    failed = [{"shard": shard, **vars(failure)} for shard, failure in failures]
    _write(storage, f"{entry.folder}/{FAILED_TABLE}", failed, _FAILED_SCHEMA)
    rows = [
        record.model_dump() | {"statistics": json.dumps(record.statistics, sort_keys=True)}
        for record in records
    ]
    schema = _SHARD_SCHEMA.with_metadata({_ENTRY: entry.model_dump_json().encode()})
    _write(storage, f"{entry.folder}/{SHARD_TABLE}", rows, schema)


def find_shard_table(storage: Storage, folder: str) -> ShardTable | None:
    """The shard table of a version; `None` if it is not complete.

    Raises:
        DatasetError: it is not readable.
    """
    path = f"{folder}/{SHARD_TABLE}"
    try:
        data = storage.read(path)
    except FileNotFoundError:
        return None
    table = _parse(data, storage.full(path), _SHARD_SCHEMA)
    try:
        entry = VersionEntry.model_validate_json((table.schema.metadata or {}).get(_ENTRY, b""))
    except ValidationError as error:
        raise DatasetError(f"{storage.full(path)}: it names no version: {error}") from error
    return ShardTable(table, entry)


def read_shard_table(storage: Storage, folder: str) -> ShardTable:
    """The shard table of a complete version.

    Raises:
        DatasetError: there is none, or it is not readable.
    """
    table = find_shard_table(storage, folder)
    if table is None:
        raise DatasetError(f"{storage.full(f'{folder}/{SHARD_TABLE}')} is missing")
    return table


def read_failures(storage: Storage, folder: str) -> list[Failure]:
    """The failed samples of a complete version, by shard.

    Raises:
        DatasetError: there is no table, or it is not readable.
    """
    path = f"{folder}/{FAILED_TABLE}"
    try:
        data = storage.read(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{storage.full(path)} is missing") from error
    rows = _parse(data, storage.full(path), _FAILED_SCHEMA).to_pylist()
    return [Failure(row["key"], row["stage"], row["error"], row["message"]) for row in rows]


def _write(storage: Storage, path: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd")
    storage.write(path, buffer.getvalue())


def _parse(data: bytes, place: str, schema: pa.Schema) -> pa.Table:
    try:
        # small: starting threads would take longer than reading
        table = pq.read_table(io.BytesIO(data), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{place}: not readable: {error}") from error
    if not table.schema.equals(schema):
        raise DatasetError(f"{place}: its columns are not those of a fourmill table")
    return table
