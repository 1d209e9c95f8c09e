"""What workers do with one block of one shard: load, run, encode, commit. No Ray in here."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.dataset import Dataset, Failure, VersionWriter
from fourmill.manifests.errors import SampleError
from fourmill.manifests.label_checks import find_problem
from fourmill.manifests.labels import (
    check_label,
    decode_image,
    empty_label,
    encode_checked,
    image_size,
)
from fourmill.manifests.modalities import Modality
from fourmill.manifests.shards import Shard
from fourmill.manifests.snapshots import Snapshot
from fourmill.manifests.summaries import merge, summarise, summarise_rows
from fourmill.pipeline.batches import Batches
from fourmill.pipeline.steps import ERROR, Outcome, Step, is_fixed_size
from fourmill.pipeline.units import Excluded

BLOCK_SAMPLES = 32  # of a shard that are loaded, labelled and encoded together

Block = list[dict[str, Any]]
"""Decoded samples: `key`, and by modality a label, `None`, or why it cannot be read."""


@dataclass(frozen=True)
class EncodedBlock:
    """One modality of one block, ready for its shard.

    Attributes:
        seconds: of labelling and encoding, on one worker.
    """

    keys: list[str]
    payloads: list[bytes] | None
    array: NDArray[Any] | None
    valid: list[bool]
    failures: list[Failure] = field(default_factory=list)
    statistics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@lru_cache(maxsize=4)
def open_dataset(url: str, snapshot_id: str) -> tuple[Dataset, Snapshot]:
    """The dataset at a pinned snapshot; a worker opens it once."""
    dataset = Dataset.open(url)
    return dataset, dataset.snapshot(snapshot_id)


def load_block(
    url: str,
    snapshot_id: str,
    modalities: Sequence[str],
    shard: int,
    rows: Sequence[int],
    max_side: int,
    excluded: Excluded | None = None,
) -> Block:
    """Samples `rows` of a shard with the modalities that the snapshot stores.

    `rgb` is decoded once, at most `max_side` pixels long; `image_size` is that of the stored image.

    Args:
        excluded: those of the samples, counted from 0, that are not to be read, with the reason.
    """
    stored = dict.fromkeys([*modalities, *(["image_size"] if "rgb" in modalities else [])])
    shards = {name: each for name in stored if (each := open_shard(url, snapshot_id, name, shard))}
    first = open_shard(url, snapshot_id, "rgb", shard)
    assert first is not None, "every dataset has rgb"
    block: Block = []
    for number, row in enumerate(rows):
        sample: dict[str, Any] = {"key": first.keys[row]}
        for name, each in shards.items():
            reason = (excluded or {}).get(number)
            sample[name] = reason or _readable(_reader(name, each, row, max_side))
        block.append(sample)
    return block


def open_shard(url: str, snapshot_id: str, modality: str, index: int) -> Shard | None:
    """A shard of a pinned snapshot, `None` of a modality that it lacks; a worker that goes through
    a shard block by block opens it once."""
    return _open_shard(url, snapshot_id, "rgb" if modality == "image_size" else modality, index)


@lru_cache(maxsize=8)  # from an object store each is held in memory
def _open_shard(url: str, snapshot_id: str, modality: str, index: int) -> Shard | None:
    dataset, snapshot = open_dataset(url, snapshot_id)
    if modality not in snapshot.modalities:
        return None
    return dataset.shard(modality, index, snapshot)


def _reader(name: str, shard: Shard, row: int, max_side: int) -> Callable[[], Any]:
    if name == "rgb":
        return lambda: decode_image(shard.payload(row), max_side)
    if name == "image_size":
        return lambda: image_size(shard.payload(row))
    return partial(shard.label, row)


def _readable(read: Callable[[], Any]) -> Any:
    """What was read, or why this sample has none."""
    try:
        return read()
    except SampleError as error:
        return error


def run_step(
    batches: Batches,
    block: Block,
    upstream: Sequence[Sequence[Outcome]],
    excluded: Excluded | None = None,
    divisor: int = 1,
) -> list[Outcome]:
    """Outcomes of a loaded step on a block, given what earlier steps of this run made of it.

    Args:
        excluded: rows that fail for a reason known before.
        divisor: of the batch size.
    """
    step = batches.step
    samples = []
    for row, base in enumerate(block):
        sample = dict.fromkeys(step.optional) | base
        for outcomes in upstream:
            outcome = outcomes[row]
            if not isinstance(outcome, SampleError):
                sample |= outcome
        for name in step.optional:
            if isinstance(sample[name], SampleError):
                sample[name] = None
        samples.append(sample)
    return batches.run(samples, excluded, divisor)


def encode_block(
    step: Step,
    name: str,
    keys: Sequence[str],
    outcomes: Sequence[Outcome],
    seconds: float = 0.0,
    excluded: Excluded | None = None,
) -> EncodedBlock:
    """One stored modality of a block as bytes or as one array; failures become empty records.

    Args:
        seconds: that the step took for it.
        excluded: rows that fail for a reason known before.
    """
    started = time.perf_counter()
    definition = step.definition(name)
    record = step.record(name)
    if record is not None and not excluded:
        rows = _all_rows(definition, name, outcomes, record)
        if rows is not None:
            statistics = summarise_rows(definition, rows) | _errors(outcomes)
            seconds += time.perf_counter() - started
            return EncodedBlock(list(keys), None, rows, [True] * len(rows), [], statistics, seconds)
    labels: list[Any] = []
    failures: list[Failure] = []
    refused: list[object] = []
    for row, (key, given) in enumerate(zip(keys, outcomes, strict=True)):
        outcome = (excluded or {}).get(row, given)
        try:
            if isinstance(outcome, SampleError):
                raise outcome
            check_label(definition, outcome[name])
            labels.append(outcome[name])
        except SampleError as error:
            labels.append(None)
            failures.append(failure(key, error))
            if not isinstance(outcome, SampleError):
                refused.append(outcome.get(name))
    valid = [each is not None for each in labels]
    payloads, array = None, None
    if is_fixed_size(definition):
        assert record is not None
        shape, dtype = record
        array = np.zeros((len(labels), *shape), dtype)
        for row, label in enumerate(labels):
            if label is not None:
                array[row] = label
    else:
        empty = empty_label(definition)
        payloads = [
            empty if label is None else encode_checked(definition, label) for label in labels
        ]
    statistics = summarise(definition, [e for e in labels if e is not None], refused)
    statistics |= _errors(each for each, good in zip(outcomes, valid, strict=True) if good)
    seconds += time.perf_counter() - started
    return EncodedBlock(list(keys), payloads, array, valid, failures, statistics, seconds)


def _errors(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """How far what some tokens decode to is from what was tokenized; whole numbers, which add up
    in any order."""
    found: list[Any] = [
        each[ERROR] for each in outcomes if not isinstance(each, SampleError) and ERROR in each
    ]
    if not found:
        return {}
    return {"decoded": {"labels": len(found), "millionths": sum(round(1e6 * e) for e in found)}}


def _all_rows(
    definition: Modality,
    name: str,
    outcomes: Sequence[Outcome],
    record: tuple[tuple[int, ...], np.dtype[Any]],
) -> NDArray[Any] | None:
    """All labels of one size as one array, checked at once; `None` if any of them is not good."""
    shape, dtype = record
    labels = []
    for each in outcomes:
        label = None if isinstance(each, SampleError) else each.get(name)
        if not isinstance(label, np.ndarray) or label.shape != shape or label.dtype != dtype:
            return None
        labels.append(label)
    if not labels:
        return None
    # with less work for each than np.stack
    rows: NDArray[Any] = np.concatenate(labels).reshape(len(labels), *shape)
    # crops of many labels are as good as those of one
    return None if find_problem(definition, rows.reshape(-1, shape[-1])) else rows


def commit_shard(
    writer: VersionWriter, shard: int, blocks: Sequence[EncodedBlock], worker: str = ""
) -> int:
    """Write one shard of one version from its blocks, once; how many samples failed."""
    keys = [key for each in blocks for key in each.keys]
    failures = [each for block in blocks for each in block.failures]
    arrays = [each.array for each in blocks if each.array is not None]
    writer.commit(
        shard,
        keys,
        payloads=None if arrays else [p for each in blocks for p in each.payloads or ()],
        array=arrays or None,
        valid=[v for each in blocks for v in each.valid],
        failures=failures,
        statistics=merge(each.statistics for each in blocks),
        seconds=sum(each.seconds for each in blocks),
        worker=worker,
    )
    return len(failures)


def failure(key: str, error: SampleError) -> Failure:
    """The row of `_failed.parquet` for a sample that failed."""
    return Failure(key=key, stage=error.stage, error=type(error).__name__, message=error.reason)
