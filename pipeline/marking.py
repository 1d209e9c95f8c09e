"""Marks: which samples keep conditions, as a modality beside the others; nothing is dropped."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fourmill.manifests.dataset import Dataset, VersionWriter
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.shards import Shard
from fourmill.manifests.snapshots import Producer, VersionEntry
from fourmill.manifests.summaries import summarise
from fourmill.pipeline.conditions import Condition, Reference
from fourmill.pipeline.over_shards import over_shards
from fourmill.pipeline.steps import code_version

_PREFIX = "mark_"
_NAME = re.compile(r"[0-9A-Za-z_-]{1,48}")


@dataclass(frozen=True)
class Marked:
    """What was marked: of `samples` so many are to `keep`."""

    modality: str
    folder: str
    samples: int
    keep: int


def mark(
    dataset: Dataset, name: str, conditions: Sequence[Condition], address: str | None = None
) -> Marked:
    """Mark every sample by whether it keeps all conditions, and publish the marks.

    The modality `mark_<name>` holds for each sample `{"keep": true, "values": {…}}`, with what was
    measured, so that other bounds can be tried by any reader.

    Raises:
        ConfigError: a name that cannot be, or labels that cannot be compared.
        UnknownNameError: a modality or snapshot that is not there.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a mark: letters, digits, _ and -, 48 at most")
    definition = Modality(f"{_PREFIX}{name}", Kind.STRUCTURE, f"{_PREFIX}{name}", "json")
    entries = {each: _entry(dataset, each) for condition in conditions for each in condition.of}
    sources = {each.modality: entry for each, entry in entries.items() if not each.snapshot}
    producer = Producer(
        name="mark",
        version="1",
        params={
            "where": list(map(str, conditions)),
            "others": {str(e): v.content_sha256 for e, v in entries.items() if e.snapshot},
        },
        code_version=code_version(),
    )
    shards = dataset.head.num_shards
    writer = dataset.writer(definition, producer, sources, shards)
    left = sorted(set(range(shards)) - writer.done())
    snapshots = {each: dataset.snapshot(each.snapshot or "HEAD").id for each in entries}
    calls = [(dataset.url, snapshots, list(conditions), writer, index) for index in left]
    samples = len(left) * dataset.shard("rgb", 0).record.samples
    for _ in over_shards(mark_shard, calls, samples, address):
        pass
    entry = writer.finish()
    dataset.publish([entry], f"mark: {definition.name}")
    keep = sum(each["keep"] for each in _marks(dataset, definition.name))
    return Marked(definition.name, entry.folder, entry.samples, keep)


def mark_shard(
    url: str,
    snapshots: Mapping[Reference, str],
    conditions: Sequence[Condition],
    writer: VersionWriter,
    index: int,
) -> None:
    """Write the marks of one shard.

    Args:
        snapshots: the id of the snapshot that each reference is read from.
    """
    started = time.perf_counter()
    dataset = Dataset.open(url)
    shards = {
        each: dataset.shard(each.modality, index, dataset.snapshot(id_))
        for each, id_ in snapshots.items()
    }
    keys = next(iter(shards.values())).keys
    marks = [_mark(conditions, shards, row) for row in range(len(keys))]
    definition = writer.lineage.definition
    writer.commit(
        index,
        keys,
        payloads=[encode_label(definition, each) for each in marks],
        statistics=summarise(definition, marks),
        seconds=time.perf_counter() - started,
    )


def _mark(
    conditions: Sequence[Condition], shards: Mapping[Reference, Shard], row: int
) -> dict[str, Any]:
    labels = {each: shard.label(row) for each, shard in shards.items()}
    values = {
        condition: condition.value(
            [shards[each].entry.definition for each in condition.of],
            [labels[each] for each in condition.of],
        )
        for condition in conditions
    }
    keep = all(condition.holds(value) for condition, value in values.items())
    return {"keep": keep, "values": {each.left: value for each, value in values.items()}}


def _entry(dataset: Dataset, reference: Reference) -> VersionEntry:
    snapshot = dataset.snapshot(reference.snapshot or "HEAD")
    if reference.modality not in snapshot.modalities:
        raise UnknownNameError("modality", reference.modality, snapshot.modalities)
    return snapshot.modalities[reference.modality]


def _marks(dataset: Dataset, name: str) -> Sequence[dict[str, Any]]:
    return [each[name] for each in dataset.samples([name])]
