"""What a dataset no longer needs, and its removal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fourmill.manifests.asides import read_names
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.life import log
from fourmill.manifests.publishing import SNAPSHOTS, is_version_folder, read_snapshot
from fourmill.manifests.snapshots import Snapshot
from fourmill.manifests.storage import ASIDE, FileInfo, Storage

_YOUNG = timedelta(days=1)


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can go, its size in bytes, and why."""

    path: str
    bytes: int
    reason: str


def collect(
    storage: Storage, head: Snapshot, *, dry_run: bool, keep: int | None, unfinished: bool
) -> list[Garbage]:
    """Remove what the head's chain does not need, and say what; see `Dataset.gc`.

    Manifests go before the versions that they name, so that a run that is killed leaves no
    snapshot without its files.

    Raises:
        ConfigError: `keep` is below 1: the head always stays.
        SnapshotError: a manifest is broken, so that what it needs is not known.
    """
    if keep is not None and keep < 1:
        raise ConfigError(f"keep is {keep}, expected at least 1: the current snapshot always stays")
    chain = [each.id for each in log(storage, head)]
    staying_ids = {*chain[:keep], *_aside_ids(storage)}
    files = storage.files(SNAPSHOTS)
    garbage = [
        Garbage(f"{SNAPSHOTS}/{name}", info.bytes, "a snapshot that is not in the chain to keep")
        for name, info in files.items()
        if (id_ := name.removesuffix(".json")) not in staying_ids
        # one that is young and in no chain may be about to become the head
        and (id_ in chain or unfinished or not _is_young({name: info}))
    ]
    going = {each.path for each in garbage}
    staying = [f"{SNAPSHOTS}/{name}" for name in files if f"{SNAPSHOTS}/{name}" not in going]
    needed, dropped = _folders(storage, staying), _folders(storage, going)
    garbage += _versions(storage, needed, dropped, unfinished)
    garbage += _aside(storage, unfinished)
    if not dry_run:
        for each in garbage:
            storage.remove(each.path)
    return garbage


def _aside_ids(storage: Storage) -> set[str]:
    """Snapshots that have a name, and the heads that they were made from."""
    kept = set()
    for id_ in read_names(storage).values():
        snapshot = read_snapshot(storage, id_)
        kept |= {id_} | ({snapshot.parent} if snapshot.parent else set())
    return kept


def _folders(storage: Storage, manifests: Iterable[str]) -> set[str]:
    """The folders that manifests name."""
    snapshots = (Snapshot.from_bytes(storage.read(path), storage.full(path)) for path in manifests)
    return {entry.folder for each in snapshots for entry in each.modalities.values()}


def _versions(
    storage: Storage, needed: set[str], dropped: set[str], unfinished: bool
) -> list[Garbage]:
    garbage = []
    for folder in storage.folders():
        if folder in needed or folder.startswith(".") or folder == SNAPSHOTS:
            continue
        if not is_version_folder(storage, folder):
            continue
        files = storage.find(folder)
        if folder in dropped:
            garbage.append(Garbage(folder, _total(files), "a version of dropped snapshots only"))
        elif unfinished or not _is_young(files):
            garbage.append(Garbage(folder, _total(files), "a version that was never published"))
    return garbage


def _aside(storage: Storage, unfinished: bool) -> list[Garbage]:
    return [
        Garbage(f"{ASIDE}/{name}", info.bytes, "left behind by a writer that was killed")
        for name, info in storage.files(ASIDE).items()
        if unfinished or not _is_young({name: info})
    ]


def _total(files: Mapping[str, FileInfo]) -> int:
    return sum(each.bytes for each in files.values())


def _is_young(files: Mapping[str, FileInfo]) -> bool:
    newest = max((each.modified for each in files.values()), default=None)
    return newest is not None and datetime.now(UTC) - newest < _YOUNG
