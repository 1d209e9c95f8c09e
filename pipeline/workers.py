"""What runs the engine's work: Ray for the time of a run, and the actor that hosts steps."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray

from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.pipeline.autopsy import cause_of_death
from fourmill.pipeline.batches import Batches
from fourmill.pipeline.memory import keep_memory
from fourmill.pipeline.steps import Outcome, Step
from fourmill.pipeline.units import Done, Errand, NotPreparedError, Passage
from fourmill.pipeline.work import Block, EncodedBlock, encode_block, load_block, run_step

_LOCAL_STORE_BYTES = 1 << 30  # more is spilled to the disk


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the time of a run: the cluster at `address`, to which this program's code is sent, or
    one in this process.

    Without an address no other cluster is ever joined, whatever runs on this machine and whatever
    `RAY_ADDRESS` says; `auto` finds them as Ray does.

    Raises:
        ConfigError: nobody answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # the engine looks at all
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {
            "address": "local",  # never a cluster that somebody else started on this machine
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": _LOCAL_STORE_BYTES,
            # those who encode and commit are needed again, and take a second of CPU to start
            "_system_config": {"idle_worker_killing_time_threshold_ms": 60_000},
        }
    else:
        options |= {"address": address, "runtime_env": {"py_modules": [str(package_folder())]}}
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address}: {error}; `ray status` on its head says whether "
            f"it runs, and without an address this machine is used alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def package_folder() -> Path:
    """The folder of the package `fourmill`, with this very code in it."""
    return Path(os.path.abspath(__file__)).parents[1]


class Worker:
    """An actor that runs any of its pool's steps.

    Args:
        batch_sizes: of steps whose device was found to have too little memory for what they
            declare.
    """

    def __init__(
        self, steps: Sequence[Step], device: str, threads: int, batch_sizes: Mapping[str, int]
    ) -> None:
        keep_memory()
        self._device = device
        self._threads = threads
        self._prepared: set[str] = set()
        self._steps = {each.name: each for each in steps}
        self._batches = {n: Batches(each, batch_sizes.get(n, 0)) for n, each in self._steps.items()}

    def start(self) -> Done:
        """Answers when the worker is there."""
        return Done(node_id())

    def prepare(self, name: str) -> Done:
        """Load a step, once."""
        self._steps[name].load(self._device)
        self._prepared.add(name)
        _limit_threads(self._threads)
        return Done(node_id())

    def run(
        self, errand: Errand, block: Block, *upstream: Sequence[Outcome]
    ) -> tuple[list[Outcome], Done]:
        """Outcomes of a block, none if only a part of it is tried, and what the driver counts.

        Raises:
            NotPreparedError: the step is not loaded.
        """
        if errand.step not in self._prepared:
            raise NotPreparedError(errand.step)
        started = time.perf_counter()
        batches = self._batches[errand.step]
        if errand.rows is not None:
            block, upstream = _part(errand.rows, block, upstream)
        outcomes = run_step(batches, block, upstream, errand.excluded, errand.divisor)
        failures = [each for each in outcomes if isinstance(each, SampleError)]
        done = Done(
            node_id(),
            samples=len(block),
            failed=len(failures),
            seconds=time.perf_counter() - started,
            reason=failures[-1].reason if failures else "",
            batch_size=batches.size if batches.size < batches.step.resources.batch_size else 0,
        )
        return ([] if errand.rows is not None else outcomes), done

    def blocks(self, passages: Sequence[Passage]) -> tuple[EncodedBlock | list[Done], ...]:
        """The labels of blocks, encoded, and what the driver counts of each: what `load`, `run` and
        `encode` do, without a way through the object store between them.

        Raises:
            NotPreparedError: a step is not loaded.
        """
        made: list[EncodedBlock] = []
        told = []
        for passage in passages:
            encoded, done = self._pass(passage)
            made += encoded
            told.append(done)
        return *made, told

    def _pass(self, passage: Passage) -> tuple[list[EncodedBlock], Done]:
        if missing := passage.steps.keys() - self._prepared:
            raise NotPreparedError(min(missing))
        started = time.perf_counter()
        block = load_block(
            passage.url, passage.snapshot_id, passage.modalities, passage.shard, passage.rows,
            passage.max_side,
        )  # fmt: skip
        loading = time.perf_counter() - started
        keys = [each["key"] for each in block]
        outcomes: dict[str, list[Outcome]] = {}
        told: dict[str, Done] = {}
        for name, upstream in passage.steps.items():
            before = [outcomes[each] for each in upstream]
            outcomes[name], told[name] = self.run(Errand(name), block, *before)
        encoded = [
            encode_block(self._steps[name], modality, keys, outcomes[name], told[name].seconds)
            for name, modality in passage.encodes
        ]
        return encoded, Done(node_id(), seconds=loading, steps=told)

    def autopsy(
        self, errand: Errand, block: Block, *upstream: Sequence[Outcome]
    ) -> tuple[None, Done]:
        """What the rows of the errand do to a process."""
        assert errand.rows is not None
        part, before = _part(errand.rows, block, upstream)
        step = self._steps[errand.step]
        return None, Done(
            node_id(), reason=cause_of_death(load_and_run, step, self._device, part, before)
        )


def load_and_run(
    step: Step, device: str, block: Block, upstream: Sequence[Sequence[Outcome]]
) -> None:
    """All that a worker does with a block, from the beginning."""
    step.load(device)
    run_step(Batches(step), block, upstream)


@lru_cache(maxsize=1)
def node_id() -> str:
    """The node of this process, as Ray calls it."""
    return str(ray.get_runtime_context().get_node_id())


def _part(
    rows: Sequence[int], block: Block, upstream: Sequence[Sequence[Outcome]]
) -> tuple[Block, tuple[list[Outcome], ...]]:
    return [block[row] for row in rows], tuple([each[row] for row in rows] for each in upstream)


def _limit_threads(threads: int) -> None:
    """Keep libraries to this many threads; those that no step imported stay unimported."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
