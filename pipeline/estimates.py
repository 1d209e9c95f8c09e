"""What a plan would take, before any of it is done: shards, samples, bytes, time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fourmill.manifests.dataset import Dataset, VersionWriter
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline.plan import Plan

_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True)
class Estimate:
    """What is left of one modality.

    Attributes:
        folder: where it is written.
        shards: that are missing, of `num_shards`.
        bytes: of the stored modalities that are read for them.
        seconds: of one worker, by what the same producer took before; `None` if it never ran here.
    """

    step: str
    modality: str
    folder: str
    shards: int
    num_shards: int
    samples: int
    bytes: int
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        time = "its time is not known, for it never ran here"
        if self.seconds is not None:
            time = f"about {_duration(self.seconds)} on one worker"
        return (
            f"{self.step}: {self.modality} → {self.folder}, {self.shards} of {self.num_shards} "
            f"shards, {self.samples} samples, {self.bytes / 1e6:,.1f} MB to read, {time}"
        )


def estimate(dataset: Dataset, plan: Plan) -> list[Estimate]:
    """One entry a modality that the plan makes, in the order of its steps."""
    found = []
    for name, each in plan.steps.items():
        shards = [index for index in plan.work if index not in each.done]
        samples = sum(plan.samples[index] for index in shards)
        size = _bytes(dataset, [*each.step.reads, *each.step.optional], shards)
        for modality, writer in each.writers.items():
            rate = _seconds_per_sample(dataset, modality, writer)
            found.append(
                Estimate(
                    step=name,
                    modality=modality,
                    folder=writer.folder,
                    shards=len(shards),
                    num_shards=writer.num_shards,
                    samples=samples,
                    bytes=size,
                    seconds=None if rate is None else rate * samples,
                )
            )
    return found


def _bytes(dataset: Dataset, reads: Sequence[str], shards: Sequence[int]) -> int:
    names = dict.fromkeys("rgb" if each == "image_size" else each for each in reads)
    columns = [dataset.shard_column(n, "bytes") for n in names if n in dataset.modalities]
    return sum(column[index] for column in columns for index in shards)


def _seconds_per_sample(dataset: Dataset, modality: str, writer: VersionWriter) -> float | None:
    """What the same producer took: in this version as far as it is, or in the current one."""
    records = writer.records()
    seconds = sum(each.seconds for each in records)
    samples = sum(each.samples for each in records)
    entry = dataset.modalities.get(modality)
    if not samples and entry is not None and _is_same(entry.producer, writer.lineage.producer):
        seconds = sum(dataset.shard_column(modality, "seconds"))
        samples = entry.samples
    return seconds / samples if samples and seconds else None


def _is_same(one: Producer, other: Producer) -> bool:
    """Whether two producers do the same work; weights may differ, the network does not."""
    return (one.name, one.version) == (other.name, other.version)


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
