"""The Ray tasks of the engine: what is not a labeler's, and so needs no actor.

Calls return what is large apart from what the driver looks at, so that blocks never travel to the
driver. Ray's own retries are off: it cannot tell a sample that kills its worker from a node that
went away, and would go round for ever; the engine can.
"""

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import ray

from fourmill.manifests.dataset import VersionWriter
from fourmill.pipeline.autopsy import cause_of_death
from fourmill.pipeline.memory import keep_memory
from fourmill.pipeline.steps import Outcome, Step
from fourmill.pipeline.units import Done, Excluded
from fourmill.pipeline.work import Block, EncodedBlock, commit_shard, encode_block, load_block
from fourmill.pipeline.workers import node_id

TASK_CPUS = 0.25


Handler = Callable[["Future[Done]"], None]
"""Called in the driver's thread when a call has ended, well or not."""


class Arrivals:
    """Calls that have ended, in the order in which they did; waiting costs the same, however many
    are under way."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Handler, Future[Done]]] = queue.SimpleQueue()

    def expect(self, done: Any, handler: Handler) -> None:
        """Have `handler` called when a call ends, given its reference to a `Done`."""
        done.future().add_done_callback(lambda future: self._queue.put((handler, future)))

    def take(self, timeout: float) -> Iterator[tuple[Handler, "Future[Done]"]]:
        """All that have ended; waits for the first, at most so many seconds."""
        try:
            yield self._queue.get(timeout=timeout)
            while True:
                yield self._queue.get_nowait()
        except queue.Empty:
            return


class Tasks:
    """Handles of the tasks; each call returns a reference to what it made, and one to a `Done`."""

    def __init__(self) -> None:
        pair = ray.remote(num_cpus=TASK_CPUS, max_retries=0, num_returns=2)
        self.load = pair(_load)
        self.load_autopsy = pair(_load_autopsy)
        self.encode = pair(_encode)
        self.encode_autopsy = pair(_encode_autopsy)
        self.commit = pair(_commit)


def _load(*arguments: Any) -> tuple[Block, Done]:
    keep_memory()
    started = time.perf_counter()
    block = load_block(*arguments)
    keys = tuple(each["key"] for each in block)
    return block, Done(node_id(), keys=keys, seconds=time.perf_counter() - started)


def _load_autopsy(*arguments: Any) -> tuple[None, Done]:
    return None, Done(node_id(), reason=cause_of_death(load_block, *arguments))


def _encode(
    step: Step,
    name: str,
    keys: Sequence[str],
    rows: Sequence[int] | None,
    seconds: float,
    excluded: Excluded,
    outcomes: Sequence[Outcome],
) -> tuple[EncodedBlock | None, Done]:
    keys, outcomes = _part(rows, keys, outcomes)
    block = encode_block(step, name, keys, outcomes, seconds, excluded)
    return (block if rows is None else None), Done(node_id())


def _encode_autopsy(
    step: Step, name: str, keys: Sequence[str], rows: Sequence[int], outcomes: Sequence[Outcome]
) -> tuple[None, Done]:
    cause = cause_of_death(encode_block, step, name, *_part(rows, keys, outcomes))
    return None, Done(node_id(), reason=cause)


def _part(
    rows: Sequence[int] | None, keys: Sequence[str], outcomes: Sequence[Outcome]
) -> tuple[Sequence[str], Sequence[Outcome]]:
    if rows is None:
        return keys, outcomes
    return [keys[row] for row in rows], [outcomes[row] for row in rows]


def _commit(writer: VersionWriter, shard: int, *blocks: EncodedBlock) -> tuple[None, Done]:
    failed = commit_shard(writer, shard, blocks, worker=node_id())
    return None, Done(node_id(), failed=failed)
