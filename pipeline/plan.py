"""What has to be done: which steps, on which shards, in which order.

Steps that read what other steps of the run store form *waves*: a wave is committed and published
before the next one starts, so that lineage names the exact bytes that were read. Within a wave
steps may hand on transient modalities, which are made where they are needed and never stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fourmill.manifests.dataset import Dataset, VersionWriter
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.snapshots import Producer, Snapshot, VersionEntry
from fourmill.pipeline.steps import Step


@dataclass(frozen=True)
class StepPlan:
    """A step of a wave, where it writes, and the shards that it has finished."""

    step: Step
    writers: Mapping[str, VersionWriter]
    done: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """One wave: for every shard the steps to run on it, upstream first.

    Attributes:
        snapshot_id: what is read.
        work: names of the steps to run, by shard.
        samples: in each shard with work.
        makers: the step that hands on a transient modality.
    """

    url: str
    snapshot_id: str
    steps: Mapping[str, StepPlan]
    work: Mapping[int, Sequence[str]]
    samples: Mapping[int, int]
    makers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do at all, not even to publish."""
        return not self.steps

    def stored_inputs(self, shard: int) -> list[str]:
        """What workers read from the dataset for this shard."""
        names: dict[str, None] = {}
        for name in self.work[shard]:
            step = self.steps[name].step
            for each in (*step.reads, *step.optional):
                if each not in self.makers:
                    names[each] = None
        return list(names)

    def upstream(self, name: str) -> list[str]:
        """The steps of this wave whose output a step reads."""
        step = self.steps[name].step
        reads = (*step.reads, *step.optional)
        return list(dict.fromkeys(self.makers[each] for each in reads if each in self.makers))


def waves(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps in the order in which they can be run, grouped so that what a wave stores is read only
    by later waves.

    Raises:
        ConfigError: two steps make the same modality, or they wait for each other.
    """
    makers: dict[str, Step] = {}
    for step in steps:
        for name in step.writes:
            if name in makers:
                raise ConfigError(
                    f"{name} would be made by both {makers[name].name} and {step.name}"
                )
            makers[name] = step
    level: dict[str, int] = {}

    def depth(step: Step, path: tuple[str, ...]) -> int:
        if step.name in path:
            raise ConfigError(f"these wait for each other: {' -> '.join((*path, step.name))}")
        if step.name not in level:
            level[step.name] = max(
                (
                    depth(maker, (*path, step.name)) + (each not in maker.transient)
                    for each in (*step.reads, *step.optional)
                    if (maker := makers.get(each)) is not None
                ),
                default=0,
            )
        return level[step.name]

    for step in steps:
        depth(step, ())
    # a step that hands on something transient runs in the waves of those who read it, too
    grouped: list[list[Step]] = []
    for number in range(max(level.values(), default=-1) + 1):
        members = [each for each in steps if level[each.name] == number]
        grouped.append(_with_transient_makers(members, makers))
    return grouped


def _with_transient_makers(members: list[Step], makers: Mapping[str, Step]) -> list[Step]:
    ordered: dict[str, Step] = {}

    def add(step: Step) -> None:
        for each in (*step.reads, *step.optional):
            maker = makers.get(each)
            if maker is not None and each in maker.transient:
                add(maker)
        ordered[step.name] = step

    for each in members:
        add(each)
    return list(ordered.values())


def plan_wave(dataset: Dataset, steps: Sequence[Step], *, relabel: bool = False) -> Plan:
    """What is missing of the wave's modalities in the current snapshot.

    Steps whose versions are current, made by the same producer from the same sources, are left
    out. A modality that another producer made is left alone unless `relabel`.

    Raises:
        ConfigError: a step reads a modality that the dataset does not have and nobody makes.
    """
    head = dataset.head
    makers = {name: step.name for step in steps for name in step.transient}
    plans: dict[str, StepPlan] = {}
    for step in steps:
        writers = _writers(dataset, head, step, steps, relabel)
        done = [writer.done() for writer in writers.values()]
        finished = frozenset.intersection(*map(frozenset, done)) if done else frozenset()
        plans[step.name] = StepPlan(step, writers, finished)
    samples = dataset.shard_column("rgb", "samples")
    work: dict[int, list[str]] = {}
    for index in range(head.num_shards):
        wanted = _needed(index, steps, plans, makers)
        if wanted:
            work[index] = wanted
    kept = {n for n, each in plans.items() if each.writers} | {n for w in work.values() for n in w}
    return Plan(
        dataset.url,
        head.id,
        {name: each for name, each in plans.items() if name in kept},
        work,
        {index: samples[index] for index in work},
        makers,
    )


def _needed(
    shard: int, steps: Sequence[Step], plans: Mapping[str, StepPlan], makers: Mapping[str, str]
) -> list[str]:
    wanted = {n for n, each in plans.items() if each.writers and shard not in each.done}
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= {makers[r] for r in (*step.reads, *step.optional) if r in makers}
    return [step.name for step in steps if step.name in wanted]


def _writers(
    dataset: Dataset, head: Snapshot, step: Step, steps: Sequence[Step], relabel: bool
) -> dict[str, VersionWriter]:
    if not step.stored:
        return {}
    producer, sources = lineage(head, step, steps)
    writers = {}
    for name in step.stored:
        entry = head.modalities.get(name)
        if entry is not None:
            fresh = entry.sources == {each: e.content_sha256 for each, e in sources.items()}
            is_current = fresh and entry.producer.digest == producer.digest
            if is_current or not (relabel or entry.producer.name == producer.name):
                continue
        writers[name] = dataset.writer(
            step.definition(name), producer, sources, num_shards=head.num_shards
        )
    return writers


def lineage(
    head: Snapshot, step: Step, steps: Sequence[Step]
) -> tuple[Producer, dict[str, VersionEntry]]:
    """The producer of a step with what it hands through, and the stored versions that it reads."""
    makers = {name: each for each in steps for name in each.transient}
    producer = step.producer()
    sources: dict[str, VersionEntry] = {}
    upstream: dict[str, str] = {}
    for name in (*step.reads, *step.optional):
        if name in makers:
            maker = makers[name]
            inner, inner_sources = lineage(head, maker, steps)
            upstream[maker.name] = inner.digest
            sources |= inner_sources
        else:
            stored = "rgb" if name == "image_size" else name
            if stored in head.modalities:
                sources[stored] = head.modalities[stored]
            elif name not in step.optional:
                raise ConfigError(
                    f"{step.name} reads {name}, which the dataset does not have: add the labeler "
                    f"that makes it"
                )
    if upstream:
        producer = producer.model_copy(update={"params": producer.params | {"upstream": upstream}})
    return producer, sources
