"""Which snapshot is current, and how another becomes it: aligned, atomically, by one at a time."""

import re
from collections.abc import Mapping, Sequence

from fourmill.manifests.errors import (
    AlignmentError,
    ConfigError,
    DatasetError,
    SnapshotError,
    StoreError,
)
from fourmill.manifests.shards import shard_name
from fourmill.manifests.snapshots import Lineage, Snapshot, VersionEntry
from fourmill.manifests.storage import Storage
from fourmill.manifests.tables import find_shard_table, read_shard_table
from fourmill.manifests.writing import RECORDS, read_plan

HEAD = "HEAD"
SNAPSHOTS = "snapshots"
NAMES = "names"
_ATTEMPTS = 10


def read_head(storage: Storage) -> Snapshot | None:
    """The current snapshot, or `None` if nothing was ever published.

    Raises:
        SnapshotError: its manifest is missing or broken.
    """
    try:
        name = storage.read(HEAD).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    return read_snapshot(storage, name)


def read_snapshot(storage: Storage, name: str) -> Snapshot:
    """The snapshot of that full id.

    Raises:
        SnapshotError: it is missing, broken, or not what its name says.
    """
    path = f"{SNAPSHOTS}/{name}.json"
    try:
        snapshot = Snapshot.from_bytes(storage.read(path), storage.full(path))
    except FileNotFoundError as error:
        raise SnapshotError(
            f"{storage.full(path)} is missing; `fourmill rollback` makes another snapshot current"
        ) from error
    if snapshot.id != name:
        raise SnapshotError(
            f"{storage.full(path)}: its content has the hash {snapshot.id}: the file was changed; "
            f"restore it, or roll back to another snapshot"
        )
    return snapshot


def snapshot_ids(storage: Storage) -> list[str]:
    """Ids of all snapshots that are there."""
    return [name.removesuffix(".json") for name in storage.files(SNAPSHOTS)]


def find_snapshot(storage: Storage, beginning: str) -> Snapshot:
    """The snapshot whose id begins so.

    Raises:
        SnapshotError: there is none, or more than one.
    """
    found = [name for name in snapshot_ids(storage) if name.startswith(beginning)]
    if len(found) != 1:
        what = "no snapshot" if not found else f"{len(found)} snapshots"
        raise SnapshotError(
            f"{storage.url} has {what} whose id begins with {beginning!r}; `fourmill log` lists "
            f"them"
        )
    return read_snapshot(storage, found[0])


def ancestor(storage: Storage, head: Snapshot, steps: int) -> Snapshot:
    """The snapshot so many steps before another one.

    Raises:
        SnapshotError: the chain is not that long, or not kept that far.
    """
    snapshot = head
    for done in range(steps):
        if snapshot.parent is None:
            raise SnapshotError(f"{storage.url}: there are only {done} snapshots before the head")
        snapshot = read_snapshot(storage, snapshot.parent)
    return snapshot


def refuse_foreign_files(storage: Storage) -> None:
    """Complain about a place that is not empty and holds no dataset, begun or complete.

    Raises:
        ConfigError: it names a file or a folder that is not ours.
    """
    foreign = [name for name in storage.files() if not name.startswith(".")]
    foreign += [name for name in storage.folders() if _is_foreign(storage, name)]
    if foreign:
        raise ConfigError(
            f"{storage.url} holds {foreign[0]!r}, which is no part of a dataset: give an empty "
            f"or a new folder"
        )


def _is_foreign(storage: Storage, folder: str) -> bool:
    if folder.startswith(".") or folder in (SNAPSHOTS, NAMES):
        return False
    # a writer makes the folder, then says what it holds, then puts shards there: so look first
    holds_something = bool(set(storage.names(folder)) - {RECORDS})
    return holds_something and not is_version_folder(storage, folder)


def is_version_folder(storage: Storage, folder: str) -> bool:
    """Whether a folder under the root holds a version, begun or complete."""
    try:
        return _holder(storage, folder) is not None
    except StoreError:
        raise
    except DatasetError:  # a shard table that is not readable is a shard table
        return True


def choose_folder(storage: Storage, name: str, lineage: Lineage) -> str:
    """The modality's own folder if it is free or holds this version, else one named after it."""
    candidates = [name]
    producer = re.sub(r"[^0-9A-Za-z_-]+", "-", lineage.producer.name)
    for digits in (4, 8, 64):
        candidates.append(f"{name}.{producer}-{lineage.identity[:digits]}")
    for folder in candidates:
        holder = _holder(storage, folder)
        if holder is None or holder.identity == lineage.identity:
            return folder
    raise AssertionError(f"{candidates[-1]} is named by a SHA-256 and holds something else")


def _holder(storage: Storage, folder: str) -> Lineage | None:
    """The lineage of what a folder holds."""
    table = find_shard_table(storage, folder)
    if table is not None:
        return table.entry
    plan = read_plan(storage, folder)
    if plan is not None:
        return plan
    # a writer that completes the version in between removes its plan after writing the table
    table = find_shard_table(storage, folder)
    return table.entry if table is not None else None


def publish(
    storage: Storage,
    base: Snapshot | None,
    entries: Sequence[VersionEntry],
    message: str,
    splits: Mapping[str, Sequence[tuple[int, int]]] | None,
) -> Snapshot:
    """See `Dataset.publish`; `base` is the head that the caller knows."""
    for _ in range(_ATTEMPTS):
        head = read_head(storage)
        _refuse_conflicts(storage, base, head, entries)
        known = head or Snapshot()
        versions = known.modalities | {each.modality: each for each in entries}
        chosen = known.splits if splits is None else _plain(splits)
        if head is not None and (head.modalities, head.splits) == (versions, chosen):
            return head
        _check_splits(chosen, next(iter(versions.values())).shards if versions else 0)
        check_alignment(storage, known, entries)
        snapshot = Snapshot(
            parent=head.id if head else None,
            message=message,
            splits=chosen,
            modalities=dict(sorted(versions.items())),
        )
        if _make_current(storage, head, snapshot):
            return snapshot
    raise SnapshotError(f"{storage.url}: others keep publishing: run it again")


def rollback(storage: Storage, head: Snapshot, target: Snapshot) -> Snapshot:
    """A new snapshot with the versions and splits of an earlier one, made current.

    Raises:
        SnapshotError: somebody else published meanwhile.
    """
    if (target.modalities, target.splits) == (head.modalities, head.splits):
        return head
    snapshot = target.model_copy(
        update={"parent": head.id, "message": f"roll back to {target.id[:12]}"}
    )
    snapshot = Snapshot.model_validate(snapshot.model_dump())  # without the other's cached id
    if not _make_current(storage, head, snapshot):
        raise SnapshotError(f"{storage.url}: somebody else published meanwhile: run it again")
    return snapshot


def check_alignment(storage: Storage, known: Snapshot, entries: Sequence[VersionEntry]) -> None:
    """Refuse versions whose shards or keys differ, from each other or from those of a snapshot.

    Raises:
        AlignmentError: it names the two and the first shard that differs.
    """
    replaced = {each.modality for each in entries}
    kept = [each for each in known.modalities.values() if each.modality not in replaced]
    compared = [*kept[:1], *entries]
    digests = [read_shard_table(storage, each.folder).column("keys_sha256") for each in compared]
    for entry, keys in zip(compared[1:], digests[1:], strict=True):
        first = compared[0]
        if len(keys) != len(digests[0]):
            raise AlignmentError(
                f"{entry.folder} has {len(keys)} shards, {first.folder} has {len(digests[0])}"
            )
        for index, (one, other) in enumerate(zip(digests[0], keys, strict=True)):
            if one != other:
                raise AlignmentError(
                    f"{shard_name(index)}: the keys in {entry.folder} are not those in "
                    f"{first.folder}, or not in the same order"
                )


def _refuse_conflicts(
    storage: Storage, base: Snapshot | None, head: Snapshot | None, entries: Sequence[VersionEntry]
) -> None:
    if (base.id if base else None) == (head.id if head else None):
        return
    before, now = (each.modalities if each else {} for each in (base, head))
    for entry in entries:
        name = entry.modality
        if now.get(name) not in (before.get(name), entry):
            raise SnapshotError(
                f"{storage.url}: somebody else published {name} meanwhile: run it again, so that "
                f"it starts from their version"
            )


def _plain(splits: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
    return {name: [(start, stop) for start, stop in ranges] for name, ranges in splits.items()}


def _check_splits(splits: Mapping[str, Sequence[tuple[int, int]]], shards: int) -> None:
    for name, ranges in splits.items():
        for start, stop in ranges:
            if not 0 <= start <= stop <= shards:
                raise ConfigError(
                    f"split {name!r}: shards {start} to {stop} are not within 0 to {shards}"
                )


def write_snapshot(storage: Storage, snapshot: Snapshot) -> None:
    """Write a manifest; nothing refers to it yet."""
    storage.write(f"{SNAPSHOTS}/{snapshot.id}.json", snapshot.to_bytes())


def remove_snapshot(storage: Storage, snapshot: Snapshot) -> None:
    """Remove a manifest that nothing refers to."""
    storage.remove(f"{SNAPSHOTS}/{snapshot.id}.json")


def _make_current(storage: Storage, head: Snapshot | None, snapshot: Snapshot) -> bool:
    write_snapshot(storage, snapshot)
    expected = f"{head.id}\n".encode() if head else None
    return storage.swap(HEAD, expected, f"{snapshot.id}\n".encode())
