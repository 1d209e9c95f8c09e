"""Pools of workers, whose sizes follow the work that waits for them.

A step that asks for a GPU or a runtime environment has a pool of its own; all others share one, in
which any worker takes the next block of any step (docs/adr/0004-one-pool-for-cpu-steps.md). Pools
grow while work waits and resources are free, shrink when workers have nothing to do, and where
there is too little for all at once (one GPU, two networks that need a whole one) they take turns.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fourmill.pipeline.steps import Step

ACTOR_CPUS = 0.75  # the rest of each CPU is for loading, encoding and committing
UNITS_PER_ACTOR = 2  # the next unit's inputs are fetched while this one runs
IDLE_SECONDS = 30.0  # after which a worker without work is let go
TURN_SECONDS = 2.0  # after which it makes room for those of a pool that has none
LOOK_SECONDS = 0.5  # between two looks at sizes
NODES_SECONDS = 10.0  # between two looks at the cluster
_GIB = 1 << 30
_PROCESS_GIB = 0.5  # interpreter and torch, contained in what every step declares


@dataclass(frozen=True)
class Demand:
    """What one worker takes: CPUs, GPUs, bytes of main memory."""

    cpus: float
    gpus: float
    memory_bytes: int

    def count_in(self, node: Mapping[str, float]) -> int:
        """How many fit on a node, or into what is left of a cluster."""
        pairs = (
            (self.cpus, node.get("CPU", 0.0) * ACTOR_CPUS),
            (self.gpus, node.get("GPU", 0.0)),
            (self.memory_bytes, node.get("memory", 0.0)),
        )
        return min((int(there / each + 1e-9) for each, there in pairs if each), default=0)


@dataclass(eq=False)
class Slot:
    """One worker.

    Attributes:
        is_ready: it has answered.
        is_retiring: it gets no more calls.
        node: where it is.
        in_flight: its calls, in the order in which it works on them.
        prepared: the steps that it has loaded, or was told to load.
        suspect: what it was working on when it died.
    """

    pool: "Pool"
    actor: Any
    is_ready: bool = False
    is_retiring: bool = False
    is_gone: bool = False
    node: str = ""
    in_flight: list[Any] = field(default_factory=list)
    prepared: set[str] = field(default_factory=set)
    suspect: Any = None
    idle_since: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether it takes another call."""
        return self.is_ready and not self.is_retiring and len(self.in_flight) < UNITS_PER_ACTOR


@dataclass(eq=False)
class Pool:
    """Workers that host the same steps.

    Attributes:
        limit: workers that the cluster has room for, if the pool had it to itself.
        queue: calls that wait for a worker.
        remaining: blocks that its steps have still to run on, those in the queue included.
        is_new: nothing is known of its speed yet.
        paused_until: no worker is started before, because the last ones could not be.
    """

    steps: list[Step]
    demand: Demand
    runtime_env: Mapping[str, Any]
    remaining: Callable[[], int]
    limit: int = 1
    is_new: bool = True
    paused_until: float = float("-inf")
    slots: list[Slot] = field(default_factory=list)
    queue: deque[Any] = field(default_factory=deque)

    @property
    def names(self) -> list[str]:
        """Of its steps."""
        return [each.name for each in self.steps]

    @property
    def title(self) -> str:
        """For messages."""
        return ", ".join(self.names)

    @property
    def working(self) -> list[Slot]:
        """Its workers but for those that finish their last calls."""
        return [each for each in self.slots if not each.is_retiring]

    @property
    def backlog(self) -> int:
        """Calls that wait or are being worked on."""
        return len(self.queue) + sum(len(each.in_flight) for each in self.slots)

    def free_slot(self, node: str) -> Slot | None:
        """The worker with the least to do, one on the node where the inputs are if there is."""
        free = [each for each in self.slots if each.is_free]
        return min(free, key=lambda s: (len(s.in_flight), s.node != node), default=None)


class Pools:
    """All pools of a run, within what the cluster has.

    Args:
        start: starts a worker.
        stop: ends one that has nothing in flight.
        nodes: the resources of every node that is alive.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        start: Callable[[Pool], Slot],
        stop: Callable[[Slot], None],
        nodes: Callable[[], list[Mapping[str, float]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.all = list(pools)
        self._start, self._stop, self._nodes, self._clock = start, stop, nodes, clock
        self._by_step = {step.name: pool for pool in pools for step in pool.steps}
        self._looked = self._counted = float("-inf")
        self._total: dict[str, float] = {}

    def of(self, step: str) -> Pool:
        """The pool that hosts a step."""
        return self._by_step[step]

    @property
    def open_blocks(self) -> int:
        """Blocks that may be in memory at a time: enough for every worker, and where pools take
        turns, enough for a turn to be worth loading a network."""
        workers = max(max(each.limit for each in self.all), sum(len(p.slots) for p in self.all))
        waits = any(each.queue and not each.slots for each in self.all)
        return max(UNITS_PER_ACTOR * workers, 16 if waits else 4)

    def rebalance(self) -> None:
        """Grow, shrink and take turns; called often, it looks now and then."""
        now = self._clock()
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        if now > self._counted + NODES_SECONDS:
            self._counted = now
            self._count_nodes()
        for pool in self.all:
            self._shrink(pool, now)
        while sum(self._grow(pool) for pool in self.all):  # one each, in turn
            pass
        for pool in self.all:
            if pool.queue and not pool.slots:
                self._make_room(pool, now)

    def remove(self, slot: Slot) -> None:
        """Forget a worker that is gone; another one is started at the next look."""
        if not slot.is_gone:
            slot.is_gone = True
            slot.pool.slots.remove(slot)
            self._looked = float("-inf")

    def release(self, slot: Slot) -> None:
        """Note that a worker has finished a call."""
        slot.idle_since = self._clock()
        slot.pool.is_new = False
        if slot.is_gone:
            return
        if slot.is_retiring and not slot.in_flight:
            self._end(slot)

    def describe(self) -> str:
        """Who works, for messages."""
        return "; ".join(
            f"{each.title}: {len(each.queue)} blocks wait for workers, of which "
            f"{sum(slot.is_ready for slot in each.slots)} of {len(each.slots)} have started"
            for each in self.all
        )

    def close(self) -> None:
        """End all workers."""
        for pool in self.all:
            for slot in list(pool.slots):
                self._end(slot)

    def _count_nodes(self) -> None:
        nodes = self._nodes()
        self._total = {}
        for node in nodes:
            for name, amount in node.items():
                self._total[name] = self._total.get(name, 0.0) + amount
        for pool in self.all:
            pool.limit = max(1, sum(pool.demand.count_in(node) for node in nodes))

    def pause(self, pool: Pool, seconds: float) -> None:
        """Start no worker of a pool for a while."""
        pool.paused_until = self._clock() + seconds

    def is_paused(self, pool: Pool) -> bool:
        """Whether no worker of it is started now."""
        return self._clock() < pool.paused_until

    def _can_start(self, pool: Pool) -> bool:
        return not self.is_paused(pool) and pool.demand.count_in(self._left()) > 0

    def _wanted(self, pool: Pool) -> int:
        if not pool.remaining() and not pool.backlog:  # what was lost is run again uncounted
            return 0
        if pool.is_new:  # enough for all blocks that can be open at once
            return min(pool.limit, pool.remaining())
        waiting = -(-pool.backlog // UNITS_PER_ACTOR)
        return min(pool.limit, max(len(pool.working), waiting))

    def _grow(self, pool: Pool) -> bool:
        if len(pool.working) >= self._wanted(pool) or not self._can_start(pool):
            return False
        pool.slots.append(self._start(pool))
        return True

    def _left(self) -> dict[str, float]:
        slots = [slot for pool in self.all for slot in pool.slots]
        used = {
            "CPU": sum(each.pool.demand.cpus for each in slots) / ACTOR_CPUS,
            "GPU": sum(each.pool.demand.gpus for each in slots),
            "memory": sum(each.pool.demand.memory_bytes for each in slots),
        }
        return {name: self._total.get(name, 0.0) - amount for name, amount in used.items()}

    def _shrink(self, pool: Pool, now: float) -> None:
        idle = [s for s in pool.working if s.is_ready and not s.in_flight]
        keep = 1 if pool.remaining() else 0
        for slot in idle:
            is_over = not pool.remaining() or now > slot.idle_since + IDLE_SECONDS
            if is_over and not pool.queue and len(pool.working) > keep:
                self._end(slot)

    def _make_room(self, pool: Pool, now: float) -> None:
        """Take workers from others until one of this pool fits: those that have nothing to do, or
        one of many that are busy, when it has finished what it has."""
        is_leaving = any(slot.is_retiring for each in self.all for slot in each.slots)
        if is_leaving or self.is_paused(pool):
            return
        for slot in self._idle(pool, now - TURN_SECONDS):
            if not pool.demand.count_in(self._left()):
                self._end(slot)
        if pool.demand.count_in(self._left()):
            pool.slots.append(self._start(pool))
            return
        largest = max(self.all, key=lambda each: len(each.slots))
        if len(largest.slots) > 1:
            slot = min(largest.slots, key=lambda each: len(each.in_flight))
            slot.is_retiring = True
            if not slot.in_flight:
                self._end(slot)

    def _idle(self, but: Pool, since: float) -> list[Slot]:
        others = [each for each in self.all if each is not but and not each.queue]
        slots = [slot for each in others for slot in each.slots]
        return [s for s in slots if s.is_ready and not s.in_flight and s.idle_since < since]

    def _end(self, slot: Slot) -> None:
        slot.is_gone = True
        slot.pool.slots.remove(slot)
        self._stop(slot)


def make_pools(
    steps: Sequence[Step], nodes: Sequence[Mapping[str, float]], remaining: Callable[[str], int]
) -> list[Pool]:
    """Pools for these steps, those with a GPU first, none of them started.

    Args:
        nodes: resources of the cluster; where there is no GPU, steps that ask for one run on CPUs.
        remaining: blocks that a step has still to run on.
    """
    has_gpus = any(node.get("GPU") for node in nodes)
    memory_there, cpus_there = (
        max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("memory", "CPU")
    )

    def pool(members: list[Step]) -> Pool:
        needs = [each.resources for each in members]
        own = max(each.memory_gib for each in needs)
        rest = sum(max(0.0, each.memory_gib - _PROCESS_GIB) for each in needs)
        memory = own + rest - max(0.0, own - _PROCESS_GIB)
        demand = Demand(
            min(max(each.cpus for each in needs), cpus_there) * ACTOR_CPUS,
            max(each.resources.gpus or each.gpu_if_any for each in members) if has_gpus else 0.0,
            int(min(memory * _GIB, memory_there)),
        )
        names = [each.name for each in members]
        return Pool(members, demand, members[0].runtime_env, lambda: sum(map(remaining, names)))

    own = [
        each
        for each in steps
        if each.resources.gpus or each.runtime_env or (has_gpus and each.gpu_if_any)
    ]
    shared = [each for each in steps if each not in own]
    return [pool([each]) for each in own] + ([pool(shared)] if shared else [])
