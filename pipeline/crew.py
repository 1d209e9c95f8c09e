"""The workers of a run as Ray actors: started, prepared, replaced when they die."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

import ray

from fourmill.manifests.errors import FourmillError
from fourmill.pipeline import faults
from fourmill.pipeline.faults import Fault
from fourmill.pipeline.pools import Pool, Pools, Slot, make_pools
from fourmill.pipeline.remote import Arrivals
from fourmill.pipeline.report import Report
from fourmill.pipeline.steps import Step
from fourmill.pipeline.units import Done
from fourmill.pipeline.workers import Worker

log = logging.getLogger(__name__)


class Crew:
    """Workers in pools.

    Args:
        remaining: blocks that a step has still to run on.
        report: gets deaths; says which batch sizes a device was found to be too small for.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        remaining: Callable[[str], int],
        arrivals: Arrivals,
        report: Report,
    ) -> None:
        self._arrivals = arrivals
        self._report = report
        self._failures: Counter[str] = Counter()
        self._stored: dict[Pool, Any] = {}
        made = make_pools(steps, live_nodes(), remaining)
        self.pools = Pools(made, self._start, self._stop, live_nodes)

    def prepare(self, slot: Slot, step: str) -> None:
        """Have a worker load a step before anything that it is asked next."""
        if step in slot.prepared:
            return
        slot.prepared.add(step)
        mark = object()  # in the queue of the worker like any other call
        slot.in_flight.append(mark)
        done = slot.actor.prepare.remote(step)
        self._arrivals.expect(done, partial(self._prepared, slot, step, mark))

    def take_off(self, slot: Slot, call: object, error: BaseException | None) -> bool:
        """Note that a call has ended; whether it is what the worker was at when it died."""
        if error is not None and faults.fault(error) is Fault.DIED and not slot.is_gone:
            slot.suspect = slot.in_flight[0]
            self._discard(slot)
            self._report.deaths += 1
        slot.in_flight.remove(call)
        self.pools.release(slot)
        return slot.suspect is call

    def _start(self, pool: Pool) -> Slot:
        if pool not in self._stored:
            self._stored[pool] = ray.put(pool.steps)
        demand = pool.demand
        options: dict[str, Any] = {"num_cpus": demand.cpus, "num_gpus": demand.gpus}
        if demand.memory_bytes:
            options["memory"] = demand.memory_bytes
        if pool.runtime_env:
            options["runtime_env"] = dict(pool.runtime_env)
        remote: Any = ray.remote(max_restarts=0, max_task_retries=0)(Worker)
        actor = remote.options(**options).remote(
            self._stored[pool],
            "cuda" if demand.gpus else "cpu",
            max(1, int(demand.cpus)),
            {name: self._report.batch_sizes.get(name, 0) for name in pool.names},
        )
        slot = Slot(pool, actor)
        self._arrivals.expect(actor.start.remote(), partial(self._started, slot))
        return slot

    def _started(self, slot: Slot, future: "Future[Done]") -> None:
        error = future.exception()
        if slot.is_gone:
            return
        what = f"workers for {slot.pool.title} cannot be started"
        if error is None:
            slot.node, slot.is_ready = future.result().node, True
            self._failures.pop(what, None)
            self.pools.release(slot)
            return
        self._discard(slot)
        self._refuse(what, slot.pool, error)

    def _prepared(self, slot: Slot, step: str, mark: object, future: "Future[Done]") -> None:
        error = future.exception()
        was_gone = slot.is_gone
        self.take_off(slot, mark, error)
        what = f"{step} cannot go on, for it cannot be loaded"
        if error is None:
            self._failures.pop(what, None)
        elif not was_gone:
            self._discard(slot)
            self._refuse(what, slot.pool, error)

    def _refuse(self, what: str, pool: Pool, error: BaseException) -> None:
        """Stop the run, unless it may have been chance: then others try it after a while.

        What happens to several workers at once, as when their node goes away, counts once.
        """
        cause = faults.raised(error)
        if faults.fault(error) is Fault.DIED or isinstance(cause, OSError):
            if self.pools.is_paused(pool):
                return
            self._failures[what] += 1
            if self._failures[what] < faults.MAX_ATTEMPTS:
                log.warning("%s: %s; others will try it", what, faults.describe(error))
                self.pools.pause(pool, faults.backoff(self._failures[what]))
                return
        if isinstance(cause, FourmillError):
            raise cause
        raise FourmillError(
            f"{what}: {faults.describe(error)}; what was committed stays"
        ) from error

    def _discard(self, slot: Slot) -> None:
        self.pools.remove(slot)
        self._stop(slot)

    def _stop(self, slot: Slot) -> None:
        with suppress(Exception):  # of a cluster that is going away
            ray.kill(slot.actor)


def live_nodes() -> list[Mapping[str, float]]:
    """The resources of every node that is alive."""
    return [each["Resources"] for each in _nodes() if each["Alive"]]


def dead_nodes() -> set[str]:
    """Nodes that are gone, as workers call them."""
    return {each["NodeID"] for each in _nodes() if not each["Alive"]}


def _nodes() -> list[dict[str, Any]]:
    return list(ray.nodes())  # type: ignore[no-untyped-call]
