"""From corpora to the first versions of a dataset: `rgb`, `caption`, `source`, exact labels.

Shard boundaries follow the listing of the sources, not their content: shard i always holds the
same items, whichever of them turn out to be broken, so shards are made in parallel, any of them
may be made again, and the bytes are the same.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fourmill.manifests.dataset import Dataset, Failure, VersionWriter
from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import (
    Encoding,
    check_label,
    empty_label,
    encode_label,
    image_format,
)
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer, Snapshot
from fourmill.manifests.summaries import summarise
from fourmill.pipeline.admission import Treatment, admit_all
from fourmill.pipeline.sources.base import FarSource, Item, LargeSource, RawSample, Source
from fourmill.pipeline.steps import code_version
from fourmill.pipeline.work import failure

OWN = ("rgb", "caption", "source")
"""What every corpus gives."""

METRIC_DEPTH = Encoding(scale=0.0005)  # half a millimetre a step, 32.7 m at most
_STEPS = 65_535  # of stored depth

OnProgress = Callable[[int, int], None]
"""Called with (items done, items failed)."""


@dataclass(frozen=True)
class IngestPlan:
    """Which items go into which shard.

    Attributes:
        shards: for every shard the source number and item of each sample.
        splits: name -> range of shards, `train` first.
        treatment: what is left out, and what is scaled down.
        shards_at_once: shards that are read at once; `None` for as many as there are CPUs.
    """

    sources: Sequence[Source]
    shards: Sequence[Sequence[tuple[int, Item]]]
    splits: Mapping[str, list[tuple[int, int]]]
    producer: Producer
    modalities: Sequence[str] = field(default=())
    treatment: Treatment = field(default_factory=Treatment)
    shards_at_once: int | None = None

    @property
    def num_items(self) -> int:
        """Images to read."""
        return sum(map(len, self.shards))


def make_key(name: str) -> str:
    """A stable, unique key: readable where the name allows it, and a hash of the whole name.

    >>> make_key("holidays/Zürich 1 (copy).jpg")
    'Z-rich-1-copy-39e1862c6e'
    """
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    slug = re.sub(r"[^0-9A-Za-z_]+", "-", stem).strip("-")[:32].strip("-")
    digest = hashlib.blake2b(name.encode(), digest_size=5).hexdigest()
    return f"{slug}-{digest}" if slug else digest


def plan_ingest(
    sources: Sequence[Source],
    *,
    samples_per_shard: int = 1000,
    held_out: float = 0.05,
    seed: int = 0,
    treatment: Treatment | None = None,
    shards_at_once: int | None = None,
) -> IngestPlan:
    """Items of all sources, split, mixed and cut into shards.

    Sources that know no split of their own hold out a share of their items, chosen by a hash of
    their names. Within a split the items are ordered by a hash too, so that every shard is a fair
    sample of all sources; those that are read together are ordered together.

    Args:
        samples_per_shard: fewer, where the samples of a source are large.

    Raises:
        SourceError: a source cannot be read.
    """
    treatment = treatment or Treatment()
    large = [each.most_in_shard for each in sources if isinstance(each, LargeSource)]
    samples_per_shard = min([samples_per_shard, *large])
    names = source_names(sources)
    entries: dict[str, list[tuple[str, str, int, Item]]] = {}
    digest = hashlib.sha256()
    for number, source in enumerate(sources):
        listing = source.listing()
        orders = [_order(seed, names[number], item.name) for item in listing]
        has_splits = any(item.split != "train" for item in listing)
        held = set() if has_splits else _held_out(orders, held_out)
        groups = {each: _order(seed, names[number], each) for each in {i.group for i in listing}}
        for item, order in zip(listing, orders, strict=True):
            split = "val" if order in held else item.split
            together = groups[item.group] if item.group else order
            entries.setdefault(split, []).append((together, order, number, item))
            digest.update(f"{number}\0{item.name}\0{split}\n".encode())
    shards: list[list[tuple[int, Item]]] = []
    splits: dict[str, list[tuple[int, int]]] = {}
    for split in sorted(entries, key=lambda each: (each != "train", each)):
        ordered = sorted(entries[split], key=lambda each: each[:3])
        chosen = [(number, item) for _, _, number, item in ordered]
        first = len(shards)
        shards += [
            chosen[start : start + samples_per_shard]
            for start in range(0, len(chosen), samples_per_shard)
        ]
        splits[split] = [(first, len(shards))]
    params = {
        "sources": [{"name": each.name, **each.params} for each in sources],
        "listing_sha256": digest.hexdigest(),
        "samples_per_shard": samples_per_shard,
        "held_out": held_out,
        **treatment.params,
    }
    producer = Producer(
        name="ingest", version="1", params=params, seed=seed, code_version=code_version()
    )
    exact = sorted({name for each in sources for name in each.label_modalities})
    modalities = (*OWN, *exact)
    return IngestPlan(sources, shards, splits, producer, modalities, treatment, shards_at_once)


def source_names(sources: Sequence[Source]) -> list[str]:
    """Names that tell sources apart: of several folders, the second is `folder-2`."""
    names = [each.name for each in sources]
    return [
        name if name not in names[:number] else f"{name}-{names[: number + 1].count(name)}"
        for number, name in enumerate(names)
    ]


def ingest(
    dataset: Dataset, plan: IngestPlan, *, address: str | None = None, on_progress: OnProgress
) -> Snapshot:
    """Read every item once and publish the dataset's first snapshot; what is there is not redone.

    Raises:
        ConfigError: the root holds a dataset made from something else.
        SourceError: a source can no longer be read.
    """
    if not dataset.is_empty:
        refuse_other(dataset, plan)
        return dataset.head
    writers = {
        name: dataset.writer(
            modality(name),
            plan.producer,
            {},
            num_shards=len(plan.shards),
            encoding=_encoding(name, plan.sources),
        )
        for name in plan.modalities
    }
    if writers["rgb"].folder != "rgb":
        raise ConfigError(
            f"{dataset.url}: another ingest was begun here with other sources or settings; finish "
            f"it with the same command, choose another root, or delete this one"
        )
    digests = [_shard_digest(plan, index) for index in range(len(plan.shards))]
    done = set.intersection(*(each.done(inputs=digests) for each in writers.values()))
    missing = [index for index in range(len(plan.shards)) if index not in done]
    on_progress(sum(len(plan.shards[index]) for index in done), 0)
    if missing:
        # Ray takes a second or two, which a run that has nothing to do must not wait for
        from fourmill.pipeline.duplicates import find_twins, forget_fingerprints
        from fourmill.pipeline.tasks import run_tasks, share
        from fourmill.pipeline.workers import ray_session

        with ray_session(address):
            sources = share(plan.sources)
            twins = find_twins(dataset.url, plan, sources, digests)
            calls = [
                (sources, plan.shards[index], index, digests[index], writers, plan.treatment,
                 twins.get(index, {}))
                for index in missing
            ]  # fmt: skip
            for items, failed in run_tasks(ingest_shard, calls, plan.shards_at_once):
                on_progress(items, failed)
        forget_fingerprints(dataset.url)
    entries = [each.finish() for each in writers.values()]
    return dataset.publish(entries, "ingest", splits=plan.splits)


def refuse_other(dataset: Dataset, plan: IngestPlan) -> None:
    """Complain if the dataset was not made by this plan.

    Raises:
        ConfigError: it says what differs.
    """
    made_by = dataset.head.modalities["rgb"].producer
    if made_by.digest == plan.producer.digest:
        return
    theirs = made_by.params | {"seed": made_by.seed}
    ours = plan.producer.params | {"seed": plan.producer.seed}
    differs = [key for key in ours if theirs.get(key) != ours[key]]
    raise ConfigError(
        f"{dataset.url} already holds another dataset (different: "
        f"{', '.join(differs) or 'version'}); give another root, or delete this one"
    )


def ingest_shard(
    sources: Sequence[Source],
    items: Sequence[tuple[int, Item]],
    index: int,
    digest: str,
    writers: Mapping[str, VersionWriter],
    treatment: Treatment,
    twins: Mapping[int, str],
) -> tuple[int, int]:
    """Read and write one shard of every modality; how many items there were and how many failed.

    Images that cannot be decoded or are not wanted do not enter the dataset; they are recorded as
    failures of `rgb` under their own names. What else a sample lacks is recorded and marked.

    Args:
        twins: rows that are near duplicates, and of what.
    """
    started = time.perf_counter()
    admitted, refused = admit_all(sources, items, treatment, twins)
    broken = [failure(item.name, error) for item, error in refused]
    names = source_names(sources)
    keys = [make_key(f"{names[number]}/{each.item.name}") for number, each in admitted]
    samples = [each.sample for _, each in admitted]
    pictures = [each.thumbnail for _, each in admitted]
    for name, writer in writers.items():
        _commit(
            name, writer, index, digest, keys, samples, pictures,
            broken if name == "rgb" else [], started,
        )  # fmt: skip
    return len(items), len(broken)


def _commit(
    name: str,
    writer: VersionWriter,
    index: int,
    digest: str,
    keys: Sequence[str],
    samples: Sequence[RawSample],
    pictures: Sequence[Any],
    failures: Sequence[Failure],
    started: float,
) -> None:
    definition, encoding = writer.lineage.definition, writer.lineage.encoding
    recorded = list(failures)
    payloads: list[bytes] = []
    valid: list[bool] = []
    labels = list(pictures) if name == "rgb" else []
    for key, sample in zip(keys, samples, strict=True):
        if name == "rgb":
            payloads.append(sample.image)
            valid.append(True)
            continue
        value = _value(name, sample)
        try:
            if value is None:
                raise SampleError("ingest", f"the corpus has no {name} for it")
            if isinstance(value, SampleError):
                raise value
            check_label(definition, value)
            payloads.append(encode_label(definition, value, encoding))
            valid.append(True)
            labels.append(value)
        except SampleError as error:
            payloads.append(empty_label(definition))
            valid.append(False)
            # photographs beside renderings have no exact labels, which is no failure
            if value is not None or not name.startswith("truth_"):
                recorded.append(failure(key, error))
    extensions = [image_format(each.image) for each in samples] if name == "rgb" else None
    writer.commit(
        index, keys, payloads=payloads, valid=valid, failures=recorded, extensions=extensions,
        statistics=summarise(definition, labels, encoding=encoding), inputs=digest,
        seconds=time.perf_counter() - started, worker="",
    )  # fmt: skip


def _value(name: str, sample: RawSample) -> Any:
    if name == "caption":
        return sample.caption
    if name == "source":
        return dict(sample.source)
    return sample.labels.get(name)


def _encoding(name: str, sources: Sequence[Source]) -> Encoding:
    """Steps of half a millimetre, or of as many millimetres as the farthest source needs."""
    if name != "truth_depth":
        return Encoding()
    farthest = max((each.farthest for each in sources if isinstance(each, FarSource)), default=0.0)
    steps = math.ceil(1000 * farthest / _STEPS)
    return Encoding(scale=steps / 1000) if steps else METRIC_DEPTH


def _held_out(orders: Sequence[str], share: float) -> set[str]:
    """Those below a threshold, so that a corpus that grows keeps its split; one at the least."""
    held = {each for each in orders if int(each[:8], 16) < share * 2**32}
    return held or ({min(orders)} if share and len(orders) > 1 else set())


def _order(seed: int, source: str, name: str) -> str:
    return hashlib.blake2b(f"{seed}\0{source}\0{name}".encode(), digest_size=8).hexdigest()


def _shard_digest(plan: IngestPlan, index: int) -> str:
    digest = hashlib.sha256(plan.producer.digest.encode())
    for number, item in plan.shards[index]:
        digest.update(f"{number}\0{item.name}\n".encode())
    return digest.hexdigest()
