"""Near duplicates in a whole corpus: hashes shard by shard in parallel, then one decision for all.

The hashes of a shard are kept until its dataset is published, so that a run that was stopped goes
on without reading everything again.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from fourmill.manifests.storage import Storage
from fourmill.pipeline.admission import Treatment, admit_all
from fourmill.pipeline.ingest import IngestPlan
from fourmill.pipeline.sources.base import Item, Source
from fourmill.pipeline.tasks import run_tasks
from fourmill.pipeline.twins import near_duplicates

FOLDER = ".fingerprints"


def find_twins(
    url: str, plan: IngestPlan, sources: Any, digests: Sequence[str]
) -> dict[int, dict[int, str]]:
    """For each shard the rows that are near duplicates of an earlier row, and of which.

    Args:
        sources: the plan's, as calls share them.
        digests: of the shards, which name their hashes.
    """
    most = plan.treatment.filters.duplicates
    if most is None:
        return {}
    storage = Storage(url)
    there = set(storage.files(FOLDER))
    calls = [
        (url, sources, items, digest, plan.treatment)
        for items, digest in zip(plan.shards, digests, strict=True)
        if _name(digest) not in there
    ]
    for _ in run_tasks(hash_shard, calls, plan.shards_at_once):
        pass
    places, hashes = _gather(storage, digests)
    twins: dict[int, dict[int, str]] = {}
    for one, kept in near_duplicates(hashes, most).items():
        (shard, row), (other_shard, other_row) = places[one].tolist(), places[kept].tolist()
        number, item = plan.shards[other_shard][other_row]
        twins.setdefault(shard, {})[row] = f"{plan.sources[number].name} {item.name}"
    return twins


def hash_shard(
    url: str,
    sources: Sequence[Source],
    items: Sequence[tuple[int, Item]],
    digest: str,
    treatment: Treatment,
) -> None:
    """Write down the hashes of the samples of a shard that enter the dataset otherwise."""
    admitted, _ = admit_all(sources, items, treatment, {})
    rows = {item.name: row for row, (_, item) in enumerate(items)}
    found = [(rows[each.item.name], each.fingerprint) for _, each in admitted]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        rows=np.array([row for row, _ in found], np.int64),
        hashes=np.array([bits for _, bits in found], np.uint64),
    )
    Storage(url).write(f"{FOLDER}/{_name(digest)}", buffer.getvalue())


def forget_fingerprints(url: str) -> None:
    """Remove the hashes, which a complete dataset does not need."""
    storage = Storage(url)
    if storage.files(FOLDER):
        storage.remove(FOLDER)


def _gather(
    storage: Storage, digests: Sequence[str]
) -> tuple[Int64[np.ndarray, "samples 2"], UInt64[np.ndarray, " samples"]]:
    """(shard, row) and hash of every sample, in order."""
    contents = storage.read_many([f"{FOLDER}/{_name(each)}" for each in digests])
    places, hashes = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.uint64)]
    for shard, data in enumerate(contents):
        with np.load(io.BytesIO(data)) as arrays:
            rows = arrays["rows"]
            hashes.append(arrays["hashes"])
        places.append(np.stack([np.full(len(rows), shard, np.int64), rows], axis=1))
    return np.concatenate(places), np.concatenate(hashes)


def _name(digest: str) -> str:
    return f"{digest}.npz"
