"""Snapshots under a name, beside the head: versions to look at before they become current.

`names/<name>` holds the id of a snapshot that is in nobody's chain. Its parent is the head that it
was made from; what differs from the parent is what becomes current with it.
"""

import re
from collections.abc import Sequence

from fourmill.manifests.errors import ConfigError, SnapshotError, UnknownNameError
from fourmill.manifests.publishing import (
    NAMES,
    check_alignment,
    publish,
    read_snapshot,
    remove_snapshot,
    write_snapshot,
)
from fourmill.manifests.snapshots import Snapshot, VersionEntry
from fourmill.manifests.storage import Storage

_NAME = re.compile(r"[A-Za-z_][0-9A-Za-z_-]{0,63}")


def read_names(storage: Storage) -> dict[str, str]:
    """The id of the snapshot behind every name."""
    found = {}
    for name in storage.files(NAMES):
        id_ = _read(storage, name)
        if id_ is not None:
            found[name] = id_
    return found


def find_aside(storage: Storage, name: str) -> Snapshot | None:
    """The snapshot of that name, if there is one.

    Raises:
        SnapshotError: its manifest is missing or broken.
    """
    id_ = _read(storage, name) if _NAME.fullmatch(name) else None
    return None if id_ is None else read_snapshot(storage, id_)


def put_aside(
    storage: Storage, head: Snapshot, name: str, entries: Sequence[VersionEntry], message: str
) -> Snapshot:
    """Name a snapshot that has these versions on top of what the name holds, or of the head.

    Raises:
        ConfigError: no such name can be.
        AlignmentError: the versions' keys differ, from each other or from the head's.
        SnapshotError: somebody else put other versions aside under this name meanwhile.
    """
    if not _NAME.fullmatch(name) or name == "HEAD":
        raise ConfigError(
            f"{name!r} cannot name a snapshot: a letter, then letters, digits, _ and -"
        )
    before = find_aside(storage, name)
    known = before or head
    check_alignment(storage, known, entries)
    snapshot = Snapshot(
        parent=before.parent if before else head.id,
        message=message if before is None else f"{before.message}; {message}",
        splits=known.splits,
        modalities=dict(sorted((known.modalities | {e.modality: e for e in entries}).items())),
    )
    write_snapshot(storage, snapshot)
    expected = f"{before.id}\n".encode() if before else None
    if not storage.swap(f"{NAMES}/{name}", expected, f"{snapshot.id}\n".encode()):
        raise SnapshotError(
            f"{storage.url}: somebody else changed {name!r} meanwhile: run it again"
        )
    if before is not None and before.id != snapshot.id:
        remove_snapshot(storage, before)
    return snapshot


def changes(storage: Storage, aside: Snapshot) -> tuple[Snapshot, list[VersionEntry]]:
    """The head that a snapshot was made from, and its versions that were not in it.

    Raises:
        SnapshotError: the manifest of that head is missing.
    """
    assert aside.parent is not None
    base = read_snapshot(storage, aside.parent)
    entries = aside.modalities.items()
    return base, [each for name, each in entries if base.modalities.get(name) != each]


def switch(storage: Storage, name: str) -> Snapshot:
    """Make what is aside under a name current in one step, and forget the name.

    What others published meanwhile stays.

    Raises:
        UnknownNameError: nothing is aside under this name.
        SnapshotError: somebody else published the same modalities meanwhile.
    """
    aside = _known(storage, name)
    base, entries = changes(storage, aside)
    made = ", ".join(each.modality for each in entries)
    snapshot = publish(storage, base, entries, f"switch to {name}: {made}", None)
    storage.remove(f"{NAMES}/{name}")
    remove_snapshot(storage, aside)  # else it would keep its versions once others drop them
    return snapshot


def drop(storage: Storage, name: str) -> None:
    """Forget a name; `gc` then frees what only it kept.

    Raises:
        UnknownNameError: nothing is aside under this name.
    """
    _known(storage, name)
    storage.remove(f"{NAMES}/{name}")


def _known(storage: Storage, name: str) -> Snapshot:
    found = find_aside(storage, name)
    if found is None:
        raise UnknownNameError("snapshot set aside", name, read_names(storage))
    return found


def _read(storage: Storage, name: str) -> str | None:
    try:
        return storage.read(f"{NAMES}/{name}").decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
