"""What workers do with one block of one shard: load, run, encode, commit. No Ray in here."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.dataset import Dataset, Failure, VersionWriter
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import (
    Encoding,
    check_label,
    decode_image,
    empty_label,
    encode_label,
    image_size,
)
from fourmill.manifests.snapshots import Snapshot
from fourmill.pipeline.steps import Outcome, Step, is_fixed_size, run_safely

BLOCK_SAMPLES = 32  # of a shard that are loaded, labelled and encoded together

Block = list[dict[str, Any]]
"""Decoded samples: `key`, and a label (or `None`) by modality."""


@dataclass(frozen=True)
class EncodedBlock:
    """One modality of one block, ready for its shard."""

    keys: list[str]
    payloads: list[bytes] | None
    array: NDArray[Any] | None
    valid: list[bool]
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


@lru_cache(maxsize=4)
def open_dataset(url: str, snapshot_id: str) -> tuple[Dataset, Snapshot]:
    """The dataset at a pinned snapshot; a worker opens it once."""
    dataset = Dataset.open(url)
    return dataset, dataset.snapshot(snapshot_id)


def load_block(
    url: str, snapshot_id: str, modalities: Sequence[str], shard: int, rows: range, max_side: int
) -> Block:
    """Samples `rows` of a shard with the modalities that the snapshot stores.

    `rgb` is decoded once, at most `max_side` pixels long; `image_size` is that of the stored image.
    """
    dataset, snapshot = open_dataset(url, snapshot_id)
    shards = {
        name: dataset.shard(name, shard, snapshot)
        for name in dict.fromkeys("rgb" if each == "image_size" else each for each in modalities)
        if name in snapshot.modalities
    }
    keys = dataset.shard("rgb", shard, snapshot).keys
    block: Block = []
    for row in rows:
        sample: dict[str, Any] = {"key": keys[row]}
        for name, each in shards.items():
            if name == "rgb":
                payload = each.payload(row)
                sample["image_size"] = image_size(payload)
                if "rgb" in modalities:
                    sample["rgb"] = decode_image(payload, max_side)
            else:
                sample[name] = each.label(row)
        block.append(sample)
    return block


def run_step(step: Step, block: Block, upstream: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """Outcomes of a step on a block, given what earlier steps of this run made of it."""
    samples = []
    for row, base in enumerate(block):
        sample = dict.fromkeys(step.optional) | base
        for outcomes in upstream:
            outcome = outcomes[row]
            if not isinstance(outcome, SampleError):
                sample |= outcome
        samples.append(sample)
    return run_safely(step, samples)


def encode_block(
    step: Step, name: str, keys: Sequence[str], outcomes: Sequence[Outcome]
) -> EncodedBlock:
    """One stored modality of a block as bytes or as one array; failures become empty records."""
    started = time.perf_counter()
    definition = step.definition(name)
    record = step.record(name)
    labels: list[Any] = []
    failures: list[Failure] = []
    for key, outcome in zip(keys, outcomes, strict=True):
        try:
            if isinstance(outcome, SampleError):
                raise outcome
            check_label(definition, outcome[name])
            labels.append(outcome[name])
        except SampleError as error:
            labels.append(None)
            failures.append(failure(key, error))
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
            empty if label is None else encode_label(definition, label, Encoding())
            for label in labels
        ]
    seconds = time.perf_counter() - started
    return EncodedBlock(list(keys), payloads, array, valid, failures, seconds)


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
        array=np.concatenate(arrays) if arrays else None,
        valid=[v for each in blocks for v in each.valid],
        failures=failures,
        statistics=token_statistics(np.concatenate(arrays)) if arrays else {},
        seconds=sum(each.seconds for each in blocks),
        worker=worker,
    )
    return len(failures)


def token_statistics(tokens: NDArray[Any]) -> Mapping[str, Any]:
    """How many different ids a shard of tokens uses."""
    return {"distinct": int(np.unique(tokens).size)}


def failure(key: str, error: SampleError) -> Failure:
    """The row of `_failed.parquet` for a sample that failed."""
    return Failure(key=key, stage=error.stage, error=type(error).__name__, message=error.reason)
