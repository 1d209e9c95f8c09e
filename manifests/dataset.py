"""A dataset: a chain of snapshots over aligned versions of modalities, under one URL."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests import asides, life, modalities, publishing
from fourmill.manifests.checking import Problem, find_problems
from fourmill.manifests.cleaning import Garbage, collect
from fourmill.manifests.errors import (
    AlignmentError,
    ConfigError,
    DatasetError,
    SnapshotError,
    UnknownNameError,
)
from fourmill.manifests.labels import Encoding
from fourmill.manifests.marks import kept_rows
from fourmill.manifests.modalities import Modality
from fourmill.manifests.quality import Quality, quality
from fourmill.manifests.shards import Shard
from fourmill.manifests.snapshots import Lineage, Producer, Snapshot, VersionEntry
from fourmill.manifests.storage import Storage
from fourmill.manifests.tables import Failure, ShardTable, read_failures, read_shard_table
from fourmill.manifests.writing import VersionWriter

__all__ = ["Dataset", "Failure", "VersionWriter"]


class Dataset:
    """A view on the snapshot that is current when the dataset is opened, or that it publishes.

    Use `Dataset.open`.
    """

    def __init__(self, storage: Storage, head: Snapshot | None) -> None:
        self._storage = storage
        self._head = head
        self._tables: dict[str, ShardTable] = {}

    @staticmethod
    def open(url: str, create: bool = False) -> "Dataset":
        """The dataset under a URL (a path, `s3://…`, or whatever fsspec knows).

        Modalities that this process does not know are registered as the manifest defines them.

        Args:
            create: an empty or missing place is an empty dataset; nothing is written yet.

        Raises:
            DatasetError: there is none.
            ConfigError: `create`, and the place holds files of something else.
        """
        storage = Storage(str(url))
        head = publishing.read_head(storage)
        if head is None and not create:
            raise DatasetError(
                f"{storage.url} holds no dataset (it has no file HEAD); `fourmill ingest` makes one"
            )
        if head is None:
            publishing.refuse_foreign_files(storage)
        for entry in head.modalities.values() if head else ():
            if entry.modality not in modalities.modality_names():
                modalities.register(entry.definition)
        return Dataset(storage, head)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._storage.url

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been published yet."""
        return self._head is None

    @property
    def head(self) -> Snapshot:
        """The snapshot that this object reads.

        Raises:
            SnapshotError: nothing has been published yet.
        """
        if self._head is None:
            raise SnapshotError(
                f"{self.url}: nothing has been published yet; run `fourmill ingest`"
            )
        return self._head

    # -- reading -------------------------------------------------------------------------------

    @property
    def modalities(self) -> dict[str, VersionEntry]:
        """The current version of every modality."""
        return dict(self.head.modalities)

    def shard_indices(self, split: str | None = None) -> list[int]:
        """Shards of a split, or all of them.

        Raises:
            UnknownNameError: no such split.
        """
        if split is None:
            return list(range(self.head.num_shards))
        if split not in self.head.splits:
            raise UnknownNameError("split", split, self.head.splits)
        return [each for start, stop in self.head.splits[split] for each in range(start, stop)]

    def shards(self, modality: str) -> list[Shard]:
        """All shards of the current version of a modality, in order; none is opened yet.

        Raises:
            UnknownNameError: the snapshot has no such modality.
            DatasetError: its shard table is missing or not readable.
        """
        return [self.shard(modality, index) for index in range(self.head.num_shards)]

    def shard(self, modality: str, index: int, snapshot: Snapshot | None = None) -> Shard:
        """One shard, of the head or of another snapshot.

        Raises:
            UnknownNameError: the snapshot has no such modality.
            DatasetError: its shard table is missing or not readable.
        """
        entry = self._entry(modality, snapshot or self.head)
        if not 0 <= index < entry.shards:
            raise ConfigError(f"{modality} has no shard {index}, only 0 to {entry.shards - 1}")
        return Shard(self._storage, entry, index, partial(self._table(entry).record, index))

    def shard_column(self, modality: str, field: str) -> list[Any]:
        """One field of the records of all shards of a modality, in order: `samples`, `bytes`,
        `seconds`, …; of many shards much faster than their records.

        Raises:
            UnknownNameError: the snapshot has no such modality.
            DatasetError: its shard table is missing or not readable.
        """
        return self._table(self._entry(modality, self.head)).column(field)

    def member_sizes(self, modality: str, index: int) -> NDArray[np.int64]:
        """Bytes of each member of one shard, where they vary; faster than its record.

        Raises:
            UnknownNameError: the snapshot has no such modality.
            DatasetError: its shard table is missing or not readable.
        """
        return self._table(self._entry(modality, self.head)).member_sizes(index)

    def samples(
        self,
        modalities: Sequence[str],
        split: str | None = None,
        shards: Sequence[int] | None = None,
        decode: bool = True,
        where: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Aligned samples in order: `key`, and by modality its label, or `None` where it has none.

        Args:
            shards: read these only.
            decode: `False` gives the bytes of the members.
            where: give only samples that this modality of marks keeps (`fourmill mark`).

        Raises:
            UnknownNameError: the snapshot has no such modality or split.
            ConfigError: `where` names no marks.
            ShardError: a file is broken.
            SampleError: the bytes of a label are not what they should be.
        """
        chosen = self.shard_indices(split) if shards is None else shards
        entries = {name: self._entry(name, self.head) for name in modalities}
        for index in chosen:
            opened = {name: self.shard(name, index) for name in entries}
            keys = next(iter(opened.values())).keys if opened else []
            kept = None if where is None else kept_rows(self.shard(where, index))
            for row, key in enumerate(keys):
                if kept is not None and row not in kept:
                    continue
                values = {
                    name: each.label(row) if decode else each.valid_payload(row)
                    for name, each in opened.items()
                }
                yield {"key": key, **values}

    def tokens(self, modality: str, split: str | None = None) -> list[NDArray[Any]]:
        """One read-only array a shard, `[samples, crops, tokens]` or `[samples, tokens]`.

        Memory-mapped on a disk, where a process can hold some 65,000 maps at a time; of larger
        datasets open the shards one by one.

        Raises:
            UnknownNameError: the snapshot has no such modality or split.
            ShardError: a file is broken, or its records have no common size.
        """
        return [self.shard(modality, index).array() for index in self.shard_indices(split)]

    def failures(self, modality: str) -> list[Failure]:
        """What failed while the current version of a modality was made."""
        return read_failures(self._storage, self._entry(modality, self.head).folder)

    # -- writing -------------------------------------------------------------------------------

    def writer(
        self,
        modality: Modality,
        producer: Producer,
        sources: Mapping[str, VersionEntry],
        num_shards: int,
        encoding: Encoding | None = None,
        folder: str | None = None,
    ) -> VersionWriter:
        """A writer for a version of a modality; nothing is written until its first commit.

        Args:
            sources: the versions that it is made from, by modality.
            folder: by default the modality's own, if it is free or holds this very version, begun
                or complete; else one with a suffix that says what makes it.

        Raises:
            AlignmentError: a source has another number of shards.
        """
        for name, each in sources.items():
            if each.shards != num_shards:
                raise AlignmentError(
                    f"{modality.name}: {num_shards} shards cannot be made from the {each.shards} "
                    f"of {name}"
                )
        lineage = Lineage(
            modality=modality.name,
            definition=modality,
            producer=producer,
            sources={name: each.content_sha256 for name, each in sorted(sources.items())},
            snapshot_of_sources=self._head.id if self._head else "",
            encoding=encoding or Encoding(),
            shards=num_shards,
        )
        chosen = folder or publishing.choose_folder(self._storage, modality.folder, lineage)
        return VersionWriter(self.url, chosen, lineage, sources)

    def publish(
        self,
        entries: Sequence[VersionEntry],
        message: str,
        splits: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> Snapshot:
        """Make versions current, in one atomic step; what is current already changes nothing.

        If somebody else published other modalities since this object read the head, the versions
        are added to theirs.

        Args:
            splits: name -> ranges of shards `[start, stop)`; by default those of the head.

        Raises:
            AlignmentError: the versions' keys differ, from each other or from the dataset's.
            SnapshotError: somebody else published the same modalities.
        """
        self._head = publishing.publish(self._storage, self._head, entries, message, splits)
        return self._head

    def put_aside(self, name: str, entries: Sequence[VersionEntry], message: str) -> Snapshot:
        """Name a snapshot with these versions; what is current stays current until `switch`.

        Raises:
            ConfigError: no such name can be.
            AlignmentError: the versions' keys differ, from each other or from the dataset's.
            SnapshotError: somebody else put other versions aside under this name.
        """
        return asides.put_aside(self._storage, self.head, name, entries, message)

    # -- the dataset's life --------------------------------------------------------------------

    def snapshot(self, name: str) -> Snapshot:
        """A snapshot by its id, the beginning of its id, a name that it was put aside under,
        `HEAD`, or `HEAD~2` for the second before the head.

        Raises:
            SnapshotError: there is none, or more than one.
        """
        if back := re.fullmatch(r"HEAD(?:~(\d+))?", name):
            return publishing.ancestor(self._storage, self.head, int(back[1] or 0))
        return asides.find_aside(self._storage, name) or publishing.find_snapshot(
            self._storage, name
        )

    def at(self, name: str) -> "Dataset":
        """The dataset as a snapshot has it, for reading; `name` as `snapshot` takes it."""
        return Dataset(self._storage, self.snapshot(name))

    @property
    def names(self) -> dict[str, str]:
        """Ids of the snapshots that were put aside, by name."""
        return asides.read_names(self._storage)

    def switch(self, name: str) -> Snapshot:
        """Make what was put aside current, in one step; what others published meanwhile stays.

        Raises:
            UnknownNameError: nothing was put aside under this name.
            SnapshotError: somebody else published the same modalities meanwhile.
        """
        self._head = asides.switch(self._storage, name)
        return self._head

    def drop(self, name: str) -> None:
        """Forget what was put aside under a name.

        Raises:
            UnknownNameError: nothing was put aside under this name.
        """
        asides.drop(self._storage, name)

    def log(self) -> list[life.LogEntry]:
        """The head and the snapshots before it, newest first."""
        return life.log(self._storage, self.head)

    def diff(self, before: str, after: str = "HEAD") -> list[life.Change]:
        """What differs between two snapshots, by modality."""
        return life.diff(self.snapshot(before), self.snapshot(after))

    def status(self) -> life.Status:
        """The state of every modality, and unfinished work."""
        return life.status(self._storage, self._head)

    def quality(self) -> list[Quality]:
        """What the labels of every modality look like, and what is odd about them; reads no label.

        Raises:
            DatasetError: a shard table is missing or not readable.
        """
        return [quality(self._table(each), self.url) for each in self.modalities.values()]

    def rollback(self, name: str) -> Snapshot:
        """Make an earlier snapshot's versions current again, as a new snapshot; nothing is lost.

        Raises:
            SnapshotError: there is no such snapshot, or somebody else published meanwhile.
        """
        self._head = publishing.rollback(self._storage, self.head, self.snapshot(name))
        return self._head

    def verify(self, deep: bool = False) -> list[Problem]:
        """Everything that is wrong with the head's files; empty for a good dataset.

        Args:
            deep: read every byte: hashes, keys, and whether every label decodes. Else manifests,
                tables and sizes.
        """
        return find_problems(self._storage, self.head, deep)

    def missing_shards(self, modality: str) -> list[int]:
        """Shards of the current version whose files are gone or not as long as they should be."""
        return life.missing_shards(self._storage, self._entry(modality, self.head))

    def gc(
        self, dry_run: bool = False, keep: int | None = None, unfinished: bool = False
    ) -> list[Garbage]:
        """Remove what no snapshot of the head's chain needs, and say what.

        Args:
            dry_run: only say.
            keep: how many snapshots of the chain to keep; all by default.
            unfinished: also remove unfinished work that is younger than a day.
        """
        return collect(self._storage, self.head, dry_run=dry_run, keep=keep, unfinished=unfinished)

    def _entry(self, modality: str, snapshot: Snapshot) -> VersionEntry:
        if modality not in snapshot.modalities:
            raise UnknownNameError(f"modality in {self.url}", modality, snapshot.modalities)
        return snapshot.modalities[modality]

    def _table(self, entry: VersionEntry) -> ShardTable:
        if entry.folder not in self._tables:
            self._tables[entry.folder] = read_shard_table(self._storage, entry.folder)
        return self._tables[entry.folder]
