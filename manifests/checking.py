"""What is wrong with the files of a dataset, where, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from fourmill.manifests.errors import DatasetError, SampleError, ShardError, SnapshotError
from fourmill.manifests.hashing import sha256_bytes
from fourmill.manifests.labels import check_label
from fourmill.manifests.packing import keys_digest
from fourmill.manifests.publishing import SNAPSHOTS, read_snapshot, snapshot_ids
from fourmill.manifests.shards import Shard, shard_name
from fourmill.manifests.snapshots import Snapshot, VersionEntry
from fourmill.manifests.storage import Storage
from fourmill.manifests.tables import (
    FAILED_TABLE,
    SHARD_TABLE,
    ShardTable,
    contents_digest,
    read_failures,
    read_shard_table,
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: where, as a URL.
        sample: the key, where it concerns one sample, else `""`.
        reason: what was found and what was expected.
        remedy: what to do.
    """

    file: str
    sample: str
    reason: str
    remedy: str


def find_problems(storage: Storage, snapshot: Snapshot, deep: bool) -> list[Problem]:
    """All problems of the versions of a snapshot; see `Dataset.verify`."""
    problems = list(_manifest_problems(storage))
    tables: dict[str, ShardTable] = {}
    for name, entry in snapshot.modalities.items():
        try:
            tables[name] = read_shard_table(storage, entry.folder)
        except DatasetError as error:
            place = storage.full(f"{entry.folder}/{SHARD_TABLE}")
            problems.append(Problem(place, "", str(error), _other_version(entry)))
            continue
        found = _table_problems(storage, entry, tables[name])
        problems += found
        if found:  # nothing else can be concluded from such a table
            del tables[name]
            continue
        problems += _failures_problems(storage, entry)
        problems += _size_problems(storage, entry, tables[name])
    problems += _alignment_problems(storage, snapshot, tables)
    if deep:
        broken = {each.file for each in problems}
        for name, table in tables.items():
            for index in range(len(table)):
                entry = snapshot.modalities[name]
                shard = Shard(storage, entry, index, partial(table.record, index))
                if shard.url not in broken:
                    problems += _shard_problems(storage, shard)
    return problems


def _manifest_problems(storage: Storage) -> Iterator[Problem]:
    """Of the snapshots before the head; the head's own is read to get here."""
    for name in snapshot_ids(storage):
        try:
            read_snapshot(storage, name)
        except SnapshotError as error:
            place = storage.full(f"{SNAPSHOTS}/{name}.json")
            remedy = "restore the file from a copy; without it nobody can roll back to it"
            yield Problem(place, "", str(error), remedy)


def _table_problems(storage: Storage, entry: VersionEntry, table: ShardTable) -> list[Problem]:
    place = storage.full(f"{entry.folder}/{SHARD_TABLE}")
    if contents_digest(table.contents) == entry.content_sha256 and len(table) == entry.shards:
        return []
    reason = "it does not describe the version that the manifest names: the table was changed"
    return [Problem(place, "", reason, _other_version(entry))]


def _failures_problems(storage: Storage, entry: VersionEntry) -> Iterator[Problem]:
    place = storage.full(f"{entry.folder}/{FAILED_TABLE}")
    remedy = "restore the file from a copy; the samples themselves are not affected"
    try:
        count = len(read_failures(storage, entry.folder))
    except DatasetError as error:
        yield Problem(place, "", str(error), remedy)
        return
    if count != entry.failed:
        yield Problem(place, "", f"{count} failures, the manifest says {entry.failed}", remedy)


def _size_problems(storage: Storage, entry: VersionEntry, table: ShardTable) -> Iterator[Problem]:
    files = storage.files(entry.folder)
    for index, expected in enumerate(table.column("bytes")):
        path = f"{entry.folder}/{shard_name(index)}"
        info = files.get(shard_name(index))
        if info is None:
            yield Problem(storage.full(path), "", "the file is missing", _make_again(entry))
        elif info.bytes != expected:
            reason = f"{info.bytes} bytes, its record says {expected}"
            yield Problem(storage.full(path), "", reason, _make_again(entry))


def _alignment_problems(
    storage: Storage, snapshot: Snapshot, tables: dict[str, ShardTable]
) -> Iterator[Problem]:
    names = list(tables)
    if not names:
        return
    first = tables[names[0]].column("keys_sha256")
    for name in names[1:]:
        entry = snapshot.modalities[name]
        keys = tables[name].column("keys_sha256")
        for index in range(max(len(first), len(keys))):
            if first[index : index + 1] != keys[index : index + 1]:
                place = storage.full(f"{entry.folder}/{shard_name(index)}")
                reason = f"its keys are not those of {names[0]}, or not in the same order"
                yield Problem(place, "", reason, _other_version(entry))


def _shard_problems(storage: Storage, shard: Shard) -> Iterator[Problem]:
    record, entry = shard.record, shard.entry
    try:
        data = storage.open_array(shard.path)
        if sha256_bytes(data.data) != record.sha256:
            reason = f"its SHA-256 is not {record.sha256}: the bytes were changed"
            yield Problem(shard.url, "", reason, _make_again(entry))
        if keys_digest(shard.keys) != record.keys_sha256:
            reason = "its keys are not those that its record says, or not in that order"
            yield Problem(shard.url, "", reason, _make_again(entry))
        yield from _header_problems(shard)
        yield from _label_problems(shard)
    except (ShardError, OSError) as error:
        yield Problem(shard.url, "", str(error), _make_again(entry))


def _label_problems(shard: Shard) -> Iterator[Problem]:
    for row, key in enumerate(shard.keys):
        try:
            label = shard.label(row)
            if label is not None:
                check_label(shard.entry.definition, label)
        except SampleError as error:
            remedy = "label the modality again into a new version: its labeler makes bad labels"
            yield Problem(shard.url, key, str(error), remedy)


def _header_problems(shard: Shard) -> Iterator[Problem]:
    for row in shard.damaged_headers():
        reason = f"the tar header of sample {row} is not what it should be"
        yield Problem(shard.url, shard.names[row], reason, _make_again(shard.entry))


def _make_again(entry: VersionEntry) -> str:
    if not entry.sources:
        return "restore the file from a copy, or ingest again into a new root"
    return (
        f"restore the file from a copy, or delete it and run {entry.producer.name} again: the "
        f"shard is made anew"
    )


def _other_version(entry: VersionEntry) -> str:
    return (
        f"roll back to a snapshot with another version of {entry.modality} (`fourmill log`), or "
        f"make a new one with {entry.producer.name}"
    )
