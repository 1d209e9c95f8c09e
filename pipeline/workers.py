"""What runs the engine's work: Ray for the time of a run, and pools of actors that host steps."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from fourmill.manifests.errors import SampleError
from fourmill.pipeline.steps import Outcome, Step
from fourmill.pipeline.work import Block, run_step

ACTOR_CPUS = 0.75  # the rest of each CPU is for loading, encoding and committing


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the time of a run: the cluster at `address`, or one in this process."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": 1 << 30,
        }
    # "local": never a cluster that somebody else started on this machine
    ray.init(address=address or "local", **options)
    try:
        yield
    finally:
        ray.shutdown()


class Worker:
    """An actor that runs any of its pool's steps; each is loaded when it is first needed."""

    def __init__(self, steps: Sequence[Step], device: str, threads: int) -> None:
        self._threads = threads
        self._steps = {each.name: each for each in steps}
        self._loaded: set[str] = set()
        self._device = device

    def run(
        self, name: str, block: Block, *upstream: Sequence[Outcome]
    ) -> tuple[list[Outcome], tuple[int, int, float]]:
        """Outcomes, and (samples, failed, seconds) for the driver."""
        started = time.perf_counter()
        step = self._steps[name]
        if name not in self._loaded:
            step.load(self._device)
            self._loaded.add(name)
            _limit_threads(self._threads)
        outcomes = run_step(step, block, upstream)
        failed = sum(isinstance(each, SampleError) for each in outcomes)
        return outcomes, (len(block), failed, time.perf_counter() - started)


def _limit_threads(threads: int) -> None:
    """Keep libraries to this many threads; those that no step imported stay unimported."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)


@dataclass
class Slot:
    """One actor and what it has in flight."""

    actor: Any
    pool: "Pool"
    in_flight: int = 0


@dataclass
class Pool:
    """Actors that host the same steps."""

    steps: list[Step]
    cpus: float
    gpus: float
    size: int
    slots: list[Slot] = field(default_factory=list)

    def start(self) -> None:
        """Bring the pool to its size."""
        while len(self.slots) < self.size:
            remote = ray.remote(max_restarts=0, max_task_retries=0)(Worker)
            device = "cuda" if self.gpus else "cpu"
            threads = max(1, int(self.cpus))
            actor = remote.options(num_cpus=self.cpus, num_gpus=self.gpus).remote(
                self.steps, device, threads
            )
            self.slots.append(Slot(actor, self))


def make_pools(steps: Sequence[Step]) -> list[Pool]:
    """Started pools for these steps: one that all steps without a GPU share, an actor a CPU; and
    one for each step that asks for a GPU."""
    available = dict[str, float](ray.cluster_resources())  # type: ignore[no-untyped-call]
    shared = [each for each in steps if not each.resources.gpus]
    pools = []
    if shared:
        cpus = max(each.resources.cpus for each in shared) * ACTOR_CPUS
        size = max(1, int(available.get("CPU", 1) * ACTOR_CPUS / cpus))
        pools.append(Pool(shared, cpus, 0.0, size))
    for step in steps:
        if step.resources.gpus:
            gpus = step.resources.gpus if available.get("GPU") else 0.0
            size = max(1, int(available.get("GPU", 1) / step.resources.gpus))
            pools.append(Pool([step], step.resources.cpus * ACTOR_CPUS, gpus, size))
    for pool in pools:
        pool.start()
    return pools
