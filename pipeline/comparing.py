"""How far two versions of a modality agree, sample by sample and over all."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.agreement import HEADLINES, compare, over_all, refuse_other_kinds
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import AlignmentError, UnknownNameError
from fourmill.manifests.snapshots import Snapshot, VersionEntry
from fourmill.pipeline.over_shards import over_shards

WORST = 10


@dataclass(frozen=True)
class Differing:
    """One sample, and how far its labels agree."""

    key: str
    shard: int
    row: int
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Agreement:
    """Two versions of one modality.

    Attributes:
        headline: the measure that samples are ordered by.
        both, only_before, only_after, neither: samples with a label in which of them.
        means: of every measure, over the samples that tell.
        over_all: measured over all samples together: mean IoU of classes, F1 of boxes.
        worst: the samples that agree least, the worst first.
    """

    modality: str
    before: VersionEntry
    after: VersionEntry
    headline: str
    both: int
    only_before: int
    only_after: int
    neither: int
    means: Mapping[str, float]
    over_all: Mapping[str, float]
    worst: Sequence[Differing]


@dataclass
class _Part:
    """What one shard adds."""

    headline: str
    there: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    sums: dict[str, float] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    worst: list[Differing] = field(default_factory=list)

    def note(self, sample: Differing, tallies: Mapping[str, NDArray[np.int64]], most: int) -> None:
        """Take in one sample that has both labels."""
        sums = {name: each for name, each in sample.measures.items() if not math.isnan(each)}
        worst = [sample] if self.headline in sums else []
        told = Counter(list(sums))
        self.add(_Part(self.headline, Counter(), sums, told, dict(tallies), worst), most)

    def add(self, other: "_Part", most: int) -> None:
        """Take in another part."""
        self.there.update(other.there)
        self.told.update(other.told)
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        for name, tally in other.tallies.items():
            self.tallies[name] = self.tallies.get(name, 0) + tally
        self.worst = sorted(
            [*self.worst, *other.worst],
            key=lambda each: (each.measures[self.headline], each.shard, each.row),
        )[:most]


def changed_modalities(before: Snapshot, after: Snapshot) -> list[str]:
    """Modalities that both snapshots have, with labels that may differ."""
    return [
        name for name, entry in before.modalities.items()
        if name in after.modalities
        and after.modalities[name].content_sha256 != entry.content_sha256
    ]  # fmt: skip


def compare_versions(
    dataset: Dataset,
    before: Snapshot,
    after: Snapshot,
    modality: str,
    *,
    samples: int | None = None,
    most: int = WORST,
    address: str | None = None,
) -> Agreement:
    """Compare a modality's versions in two snapshots.

    Args:
        samples: how many to look at, spread evenly; all by default.
        most: how many of those that agree least to list.

    Raises:
        UnknownNameError: one of the snapshots has no such modality.
        ConfigError: labels that cannot be compared.
    """
    old, new = (_entry(each, modality) for each in (before, after))
    refuse_other_kinds(old.definition, new.definition)
    total = _Part(HEADLINES[old.definition.kind])
    rows = _spread(dataset, before, modality, samples)
    calls = [
        (dataset.url, before.id, after.id, modality, shard, chosen, most)
        for shard, chosen in rows.items()
    ]
    for part in over_shards(_compare_shard, calls, sum(map(len, rows.values())), address):
        total.add(part, most)
    there = total.there
    return Agreement(
        modality,
        old,
        new,
        headline=total.headline,
        both=there[True, True],
        only_before=there[True, False],
        only_after=there[False, True],
        neither=there[False, False],
        means={name: total.sums[name] / total.told[name] for name in total.sums},
        over_all=over_all(old.definition.kind, total.tallies),
        worst=total.worst,
    )


def _entry(snapshot: Snapshot, modality: str) -> VersionEntry:
    if modality not in snapshot.modalities:
        known = snapshot.modalities
        raise UnknownNameError(f"modality in snapshot {snapshot.id[:12]}", modality, known)
    return snapshot.modalities[modality]


def _spread(
    dataset: Dataset, snapshot: Snapshot, modality: str, samples: int | None
) -> dict[int, Sequence[int]]:
    """Rows to look at by shard: all, or so many spread evenly."""
    sizes = [
        dataset.shard(modality, shard, snapshot).record.samples
        for shard in range(snapshot.num_shards)
    ]
    total = sum(sizes)
    if samples is None or samples >= total:
        return {shard: range(size) for shard, size in enumerate(sizes) if size}
    places = np.linspace(0, total - 1, samples).round().astype(np.int64)
    ends = np.cumsum(sizes)
    shards = np.searchsorted(ends, places, side="right")
    rows: dict[int, list[int]] = {}
    for shard, place in zip(shards.tolist(), places.tolist(), strict=True):
        rows.setdefault(shard, []).append(place - int(ends[shard]) + sizes[shard])
    return dict(rows)


def _compare_shard(
    url: str,
    before: str,
    after: str,
    modality: str,
    shard: int,
    rows: Iterable[int],
    most: int,
) -> _Part:
    dataset = Dataset.open(url)
    one, other = (dataset.shard(modality, shard, dataset.snapshot(e)) for e in (before, after))
    if one.record.keys_sha256 != other.record.keys_sha256:
        raise AlignmentError(f"{one.url} and {other.url} hold different keys")
    definitions = one.entry.definition, other.entry.definition
    part = _Part(HEADLINES[definitions[0].kind])
    for row in rows:
        ours, theirs = one.label(row), other.label(row)
        part.there[ours is not None, theirs is not None] += 1
        if ours is None or theirs is None:
            continue
        found = compare(definitions[0], ours, definitions[1], theirs)
        differing = Differing(one.keys[row], shard, row, dict(found.measures))
        part.note(differing, found.tallies, most)
    return part
