"""The Ray engine: one wave of steps over the shards of a dataset.

    load (CPU task) ──> step ──> step … (actors) ──> encode (CPU task) ──> commit (CPU task)
      one block            outputs stay in              one modality         one shard of one
      of one shard         the object store             of one block         version, once

The driver owns every unit of work (step, shard, block) and its retries. Blocks in flight are
bounded, so memory is bounded whatever the size of shards. Steps without a GPU share one pool of
actors, one per CPU; a step that asks for a GPU gets a pool of its own.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError

from fourmill.manifests.dataset import VersionWriter
from fourmill.manifests.errors import FourmillError
from fourmill.pipeline.plan import Plan
from fourmill.pipeline.work import (
    BLOCK_SAMPLES,
    Block,
    EncodedBlock,
    commit_shard,
    encode_block,
    load_block,
)
from fourmill.pipeline.workers import Slot, make_pools

log = logging.getLogger(__name__)

TASK_CPUS = 0.25
MAX_ATTEMPTS = 3
UNITS_PER_ACTOR = 2  # the next unit's inputs are fetched while this one runs
MAX_FAILURES_IN_A_ROW = 100


@dataclass(frozen=True)
class Unit:
    """What one remote call is about."""

    kind: Literal["load", "run", "encode", "commit"]
    shard: int
    block: int = 0
    step: str = ""
    modality: str = ""


@dataclass
class Report:
    """What a wave did.

    Attributes:
        samples: run through each step, and how many of them failed.
        busy_seconds: time in each step, summed over workers.
    """

    samples: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busy_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall_seconds: float = 0.0


OnProgress = Callable[[str, int, int], None]
"""Called with (step, samples done, samples failed) whenever a block is finished."""


class Engine:
    """Runs one plan. Use it once."""

    def __init__(self, plan: Plan, on_progress: OnProgress | None = None) -> None:
        self._plan = plan
        self._on_progress = on_progress or (lambda *_: None)
        self._report = Report()
        self._max_side = max(
            (getattr(each.step, "max_side", 0) for each in plan.steps.values()), default=0
        )
        self._pending: dict[Any, tuple[Unit, Slot | None]] = {}
        self._ready: deque[Unit] = deque()
        self._objects: dict[Unit, Any] = {}  # large results, in the object store
        self._keys: dict[tuple[int, int], list[str]] = {}
        self._finished: set[Unit] = set()
        self._failures_in_a_row: dict[str, int] = defaultdict(int)
        self._attempts: dict[Unit, int] = defaultdict(int)
        self._waiting: dict[tuple[int, str], int] = {}
        self._open_blocks: dict[tuple[int, int], int] = {}
        self._blocks = deque(self._all_blocks())
        task = ray.remote(num_cpus=TASK_CPUS, max_retries=2)
        self._load = task(_load)
        self._encode = task(_encode)
        self._commit = task(_commit)

    def run(self) -> Report:
        """Do all the work of the plan, committing each (step, shard) as soon as it is complete.

        Raises:
            FourmillError: a step cannot be loaded, workers die again and again on the same block,
                or samples fail one after another; what was committed stays.
        """
        started = time.perf_counter()
        names = {name for work in self._plan.work.values() for name in work}
        self._pools = make_pools([e.step for n, e in self._plan.steps.items() if n in names])
        try:
            while self._pending or self._blocks or self._ready:
                self._admit()
                self._dispatch()
                finished, _ = ray.wait(list(self._pending), num_returns=1, timeout=5.0)
                for ref in finished:
                    self._handle(ref)
        finally:
            for pool in self._pools:
                for slot in pool.slots:
                    ray.kill(slot.actor)
        self._report.wall_seconds = time.perf_counter() - started
        return self._report

    def _all_blocks(self) -> Iterator[tuple[int, int]]:
        for shard in self._plan.work:
            for start in range(0, self._plan.samples[shard], BLOCK_SAMPLES):
                yield shard, start

    def _num_blocks(self, shard: int) -> int:
        return -(-self._plan.samples[shard] // BLOCK_SAMPLES)

    # -- sending work out ----------------------------------------------------------------------

    def _admit(self) -> None:
        limit = 2 * sum(len(pool.slots) for pool in self._pools)
        while self._blocks and len(self._open_blocks) < limit:
            shard, start = self._blocks.popleft()
            rows = range(start, min(start + BLOCK_SAMPLES, self._plan.samples[shard]))
            unit = Unit("load", shard, start)
            self._objects[unit], keys = self._load.options(num_returns=2).remote(
                self._plan.url, self._plan.snapshot_id, self._plan.stored_inputs(shard), shard,
                rows, self._max_side,
            )  # fmt: skip
            self._pending[keys] = (unit, None)
            self._open_blocks[shard, start] = self._calls(shard)

    def _calls(self, shard: int) -> int:
        """Remote calls that one block of the shard still takes after it is loaded."""
        steps = [self._plan.steps[name] for name in self._plan.work[shard]]
        return len(steps) + sum(len(each.writers) for each in steps if shard not in each.done)

    def _dispatch(self) -> None:
        for _ in range(len(self._ready)):
            unit = self._ready.popleft()
            slot = self._free_slot(unit.step)
            if slot is None:
                self._ready.append(unit)
                continue
            inputs = [self._objects[Unit("load", unit.shard, unit.block)]]
            inputs += [
                self._objects[Unit("run", unit.shard, unit.block, name)]
                for name in self._plan.upstream(unit.step)
            ]
            self._objects[unit], counts = slot.actor.run.options(num_returns=2).remote(
                unit.step, *inputs
            )
            self._pending[counts] = (unit, slot)
            slot.in_flight += 1

    def _free_slot(self, step: str) -> Slot | None:
        slots = [
            slot
            for pool in self._pools
            if any(each.name == step for each in pool.steps)
            for slot in pool.slots
            if slot.in_flight < UNITS_PER_ACTOR
        ]
        return min(slots, key=lambda slot: slot.in_flight, default=None)

    # -- taking results in ---------------------------------------------------------------------

    def _handle(self, ref: Any) -> None:
        unit, slot = self._pending.pop(ref)
        if slot is not None:
            slot.in_flight -= 1
        try:
            result = ray.get(ref)
        except RayActorError as error:
            self._replace(unit, slot, error)
            return
        except RayTaskError as error:
            raise _explained(unit, error) from error
        getattr(self, f"_after_{unit.kind}")(unit, result)

    def _after_load(self, unit: Unit, keys: list[str]) -> None:
        self._keys[unit.shard, unit.block] = keys
        for name in self._plan.work[unit.shard]:
            if not self._plan.upstream(name):
                self._ready.append(Unit("run", unit.shard, unit.block, name))

    def _after_run(self, unit: Unit, counts: tuple[int, int, float]) -> None:
        self._count(unit.step, *counts)
        self._finished.add(unit)
        for name in self._plan.work[unit.shard]:
            upstream = self._plan.upstream(name)
            if unit.step in upstream and all(
                Unit("run", unit.shard, unit.block, each) in self._finished for each in upstream
            ):
                self._ready.append(Unit("run", unit.shard, unit.block, name))
        self._encode_outputs(unit)
        self._close_call(unit)

    def _encode_outputs(self, unit: Unit) -> None:
        plan = self._plan.steps[unit.step]
        if unit.shard in plan.done:
            return  # it ran only to hand something on
        keys = self._keys[unit.shard, unit.block]
        for name in plan.writers:
            each = Unit("encode", unit.shard, unit.block, unit.step, name)
            self._objects[each], done = self._encode.options(num_returns=2).remote(
                plan.step, name, keys, self._objects[unit]
            )
            self._pending[done] = (each, None)

    def _after_encode(self, unit: Unit, _: int) -> None:
        self._close_call(unit)
        left = (unit.shard, unit.modality)
        self._waiting.setdefault(left, self._num_blocks(unit.shard))
        self._waiting[left] -= 1
        if self._waiting[left]:
            return
        blocks = sorted(
            (e for e in self._objects if (e.kind, e.shard, e.modality) == ("encode", *left)),
            key=lambda each: each.block,
        )
        writer = self._plan.steps[unit.step].writers[unit.modality]
        ref = self._commit.remote(writer, unit.shard, *[self._objects.pop(each) for each in blocks])
        self._pending[ref] = (Unit("commit", unit.shard, 0, unit.step, unit.modality), None)

    def _after_commit(self, unit: Unit, _: int) -> None:
        log.debug("committed shard=%d modality=%s", unit.shard, unit.modality)

    def _close_call(self, unit: Unit) -> None:
        """Let go of a block's objects when nothing will read them any more."""
        place = (unit.shard, unit.block)
        self._open_blocks[place] -= 1
        if self._open_blocks[place] == 0:
            del self._open_blocks[place]
            self._keys.pop(place)
            for each in [e for e in self._objects if (e.shard, e.block) == place]:
                if each.kind in ("load", "run"):
                    del self._objects[each]

    def _count(self, step: str, samples: int, failed: int, seconds: float) -> None:
        self._report.samples[step] += samples
        self._report.failed[step] += failed
        self._report.busy_seconds[step] += seconds
        row = self._failures_in_a_row
        row[step] = row[step] + failed if failed == samples else 0
        self._on_progress(step, samples, failed)
        if row[step] >= MAX_FAILURES_IN_A_ROW:
            raise FourmillError(
                f"{step}: the last {row[step]} samples failed one after another; the labeler or "
                f"the data is likely broken; `fourmill status` lists what was recorded"
            )

    def _replace(self, unit: Unit, slot: Slot | None, error: Exception) -> None:
        """A worker died: start another one and try its unit again, a few times."""
        if slot is not None and slot in slot.pool.slots:
            slot.pool.slots.remove(slot)
            slot.pool.start()
        self._attempts[unit] += 1
        if self._attempts[unit] >= MAX_ATTEMPTS:
            raise FourmillError(
                f"{unit.step}: workers died {MAX_ATTEMPTS} times on samples {unit.block} to "
                f"{unit.block + BLOCK_SAMPLES - 1} of shard {unit.shard}; what was committed stays"
            ) from error
        log.warning("worker died step=%s shard=%d block=%d", unit.step, unit.shard, unit.block)
        self._ready.appendleft(unit)


# Remote calls return what is large apart from what the driver looks at, so that blocks never
# travel to the driver.


def _load(*arguments: Any) -> tuple[Block, list[str]]:
    block = load_block(*arguments)
    return block, [each["key"] for each in block]


def _encode(*arguments: Any) -> tuple[EncodedBlock, int]:
    block = encode_block(*arguments)
    return block, len(block.failures)


def _commit(writer: VersionWriter, shard: int, *blocks: EncodedBlock) -> int:
    return commit_shard(writer, shard, blocks, worker=ray.get_runtime_context().get_node_id())


def _explained(unit: Unit, error: RayTaskError) -> FourmillError:
    """What a worker raised, as one message; what one sample does to a step never comes here."""
    cause = error.cause
    if isinstance(cause, FourmillError):
        return cause
    reason = f"{type(cause).__name__}: {cause}".split("\n", 1)[0]
    log.error("unit=%s\n%s", unit, error)
    return FourmillError(
        f"{unit.step or unit.kind} cannot go on at shard {unit.shard}: {reason}; what was "
        f"committed stays"
    )
