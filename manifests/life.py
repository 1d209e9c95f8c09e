"""The life of a dataset: its history, what changed, what is stale, what is unfinished."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fourmill.manifests.errors import SnapshotError
from fourmill.manifests.publishing import SNAPSHOTS, read_snapshot, snapshot_ids
from fourmill.manifests.shards import shard_name
from fourmill.manifests.snapshots import Lineage, Snapshot, VersionEntry
from fourmill.manifests.storage import Storage
from fourmill.manifests.tables import find_shard_table, read_shard_table
from fourmill.manifests.writing import read_commits, read_plan


@dataclass(frozen=True)
class LogEntry:
    """A snapshot of the chain, and when its manifest was written (UTC, by the store's clock)."""

    id: str
    snapshot: Snapshot
    time: datetime


@dataclass(frozen=True)
class Change:
    """What became of one modality between two snapshots.

    Attributes:
        kind: `added`, `removed` or `changed`.
        reasons: what of a changed version differs: `producer`, `sources`, `content`, ….
    """

    modality: str
    kind: str
    before: VersionEntry | None
    after: VersionEntry | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModalityStatus:
    """One modality of the current snapshot.

    Attributes:
        bytes: of its shards.
        state: `current`, or `stale: …` with the reason.
    """

    modality: str
    folder: str
    producer: str
    samples: int
    failed: int
    bytes: int
    state: str

    @property
    def is_stale(self) -> bool:
        """Whether a source changed since it was made."""
        return self.state != "current"


@dataclass(frozen=True)
class Unfinished:
    """A version that was begun and is in no snapshot: `shards_done` of `shards`."""

    folder: str
    modality: str
    producer: str
    shards_done: int
    shards: int


@dataclass(frozen=True)
class Status:
    """What `fourmill status` shows."""

    modalities: list[ModalityStatus]
    unfinished: list[Unfinished]


def log(storage: Storage, head: Snapshot) -> list[LogEntry]:
    """The head and the snapshots before it, as far back as they were kept, newest first.

    Raises:
        SnapshotError: a manifest is broken.
    """
    files = storage.files(SNAPSHOTS)
    entries = [LogEntry(head.id, head, files[f"{head.id}.json"].modified)]
    while (parent := entries[-1].snapshot.parent) and f"{parent}.json" in files:
        snapshot = read_snapshot(storage, parent)
        entries.append(LogEntry(parent, snapshot, files[f"{parent}.json"].modified))
    return entries


def diff(before: Snapshot, after: Snapshot) -> list[Change]:
    """Modalities that were added, removed or changed, by name."""
    changes = []
    for name in sorted(before.modalities.keys() | after.modalities.keys()):
        old, new = before.modalities.get(name), after.modalities.get(name)
        if old == new:
            continue
        if old is None or new is None:
            changes.append(Change(name, "added" if old is None else "removed", old, new))
        else:
            changes.append(Change(name, "changed", old, new, _reasons(old, new)))
    return changes


def _reasons(old: VersionEntry, new: VersionEntry) -> tuple[str, ...]:
    reasons = []
    if old.producer.name != new.producer.name or old.producer.version != new.producer.version:
        reasons.append(f"producer {producer_label(old)} -> {producer_label(new)}")
    for field in ("params", "weights_sha256", "seed", "licence", "code_version"):
        one, other = getattr(old.producer, field), getattr(new.producer, field)
        if one != other:
            reasons.append(f"{field} {one!r} -> {other!r}")
    changed = sorted(
        name for name in old.sources.keys() | new.sources.keys()
        if old.sources.get(name) != new.sources.get(name)
    )  # fmt: skip
    if changed:
        reasons.append(f"sources: {', '.join(changed)}")
    if old.definition != new.definition:
        reasons.append("definition")
    if old.content_sha256 == new.content_sha256:
        reasons.append("same content")
    if old.failed != new.failed:
        reasons.append(f"failed {old.failed} -> {new.failed}")
    return tuple(reasons)


def producer_label(entry: Lineage) -> str:
    """Name and version of what made it."""
    return f"{entry.producer.name} {entry.producer.version}"


def status(storage: Storage, head: Snapshot | None) -> Status:
    """The state of every modality of a snapshot, and what was begun and is in no snapshot."""
    entries = head.modalities if head else {}
    return Status(
        [
            ModalityStatus(
                name, each.folder, producer_label(each), each.samples, each.failed, each.bytes,
                _state(name, entries),
            )
            for name, each in sorted(entries.items())
        ],
        _unfinished(storage),
    )  # fmt: skip


def _state(
    name: str, entries: Mapping[str, VersionEntry], above: frozenset[str] = frozenset()
) -> str:
    """`current` or `stale: …`.

    What was made from an earlier version of itself, or of what is made from it, is not stale
    because of that: the modalities in `above` are not looked at again.
    """
    above |= {name}
    for source, content in entries[name].sources.items():
        if source in above:
            continue
        now = entries.get(source)
        if now is None:
            return f"stale: {source} removed"
        if now.content_sha256 != content:
            return f"stale: {source} changed"
        if _state(source, entries, above) != "current":
            return f"stale: {source} is stale"
    return "current"


def _unfinished(storage: Storage) -> list[Unfinished]:
    published = published_folders(storage)
    found = []
    for folder in storage.folders():
        if folder in published or folder.startswith(".") or folder == SNAPSHOTS:
            continue
        lineage: Lineage | None
        table = find_shard_table(storage, folder)
        if table is not None:
            lineage, done = table.entry, len(table)
        else:
            lineage, done = read_plan(storage, folder), len(read_commits(storage, folder))
        if lineage is None:
            continue
        label = producer_label(lineage)
        found.append(Unfinished(folder, lineage.modality, label, done, lineage.shards))
    return found


def published_folders(storage: Storage) -> set[str]:
    """Folders that any readable snapshot refers to."""
    folders: set[str] = set()
    for name in snapshot_ids(storage):
        try:
            snapshot = read_snapshot(storage, name)
        except SnapshotError:  # `verify` tells of it
            continue
        folders |= {each.folder for each in snapshot.modalities.values()}
    return folders


def missing_shards(storage: Storage, entry: VersionEntry) -> list[int]:
    """Shards of a version whose files are gone or not as long as they should be."""
    files = storage.files(entry.folder)
    sizes = read_shard_table(storage, entry.folder).column("bytes")
    return [
        index for index, size in enumerate(sizes)
        if (found := files.get(shard_name(index))) is None or found.bytes != size
    ]  # fmt: skip
