"""The engine beside what it cannot be faster than.

    python benchmarks/engine.py [--json] [--only overhead decode experts pools driver plan]

overhead: a network on one worker of the engine, beside the bare loop over the same blocks, decoded
before. decode: a labeler that takes no time, beside reading and decoding alone in as many
processes, in pictures a second and in CPU time of all processes, Ray's own among them; and beside
processes that keep their memory, as the engine's workers do. experts: five networks in one run,
beside the sum of their bare loops and one decode.
pools: the same networks in one pool that they share, beside a pool for each, on two CPUs. driver:
CPU time that the driver takes for a unit of work, with a labeler that sleeps, where blocks stay in
one worker and where they are handed on; the second tenth of the units beside the last, and what
memory it gains between. plan: how long a restart over a
finished dataset plans.

Baseline and candidate take turns, and the median of the ratios counts, so that what else runs on
the machine harms both; CPU time hardly knows of it. The start of Ray and of workers is not counted:
cost is taken once a few blocks are finished and every worker has loaded its steps.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import skimage.data
import tyro
from PIL import Image
from results import Result, show_parts

from fourmill.labelers.base import Resources, Sample
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.shards import ShardRecord
from fourmill.manifests.snapshots import Lineage, Producer, VersionEntry
from fourmill.manifests.storage import Storage
from fourmill.manifests.tables import contents_digest, write_tables
from fourmill.pipeline import pace
from fourmill.pipeline.batches import Batches
from fourmill.pipeline.engine import Engine
from fourmill.pipeline.memory import keep_memory
from fourmill.pipeline.plan import Plan, plan_wave
from fourmill.pipeline.steps import Outcome, Step
from fourmill.pipeline.work import BLOCK_SAMPLES, Block, load_block, run_step
from fourmill.pipeline.workers import ray_session

_MANY_UNITS = 100_000  # of which a trend can be seen
_WARM_BLOCKS = 32  # in which workers start, import and load

# what is written, and the side of the pictures that the network looks at, in pixels
_NETWORKS = {"saliency": 96, "canny_edge": 128, "hed_edge": 160, "sam_edge": 192, "depth": 224}


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        only: these parts.
        samples: pictures, 512 x 384, that networks label; 96 times as many where there is none.
        repeats: of each pair.
        units: of work that the driver is watched over, three for each block.
        shards: of the finished dataset.
        json: print one JSON object a line instead of a table.
    """

    only: tuple[str, ...] = ("overhead", "decode", "experts", "pools", "driver", "plan")
    samples: int = 128
    repeats: int = 3
    units: int = 10_000
    shards: int = 10_000
    json: bool = False


class Probe(Step):
    """Labels of one pixel, after as much work as is asked for.

    Args:
        side: of the pictures that a residual network looks at, in pixels; 0 for no network.
        sleeps: seconds for each batch.
        reads: `rgb`, or `image_size`, which takes no decoding.

    Attributes:
        loaded: a folder in which every worker that has loaded it leaves a file.
    """

    loaded = ""

    def __init__(
        self, writes: str = "saliency", side: int = 0, sleeps: float = 0.0, reads: str = "rgb"
    ) -> None:
        self.name = f"probe-{writes}"
        self.reads, self.writes = (reads,), (writes,)
        self.side, self.sleeps = side, sleeps
        self.max_side = 512
        self.resources = Resources(memory_gib=0.6, batch_size=16)
        self._version = str(time.monotonic_ns())  # what an earlier one made is not taken for its

    def producer(self) -> Producer:
        return Producer(name=self.name, version=self._version)

    def load(self, device: str) -> None:
        import torch
        from torchvision.models import resnet18

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._network = resnet18().eval() if self.side else None
        if self.loaded:
            Path(self.loaded, f"{self.name}-{os.getpid()}").touch()

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        import torch

        if self.sleeps:
            time.sleep(self.sleeps)
        if self._network is not None:
            pictures = np.stack([each["rgb"][: self.side, : self.side] for each in batch])
            with torch.inference_mode():
                self._network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
        name = self.writes[0]
        label = np.zeros((1, 1), np.float32 if name == "depth" else np.uint8)
        return [{name: label} for _ in batch]


@dataclass(frozen=True)
class Cost:
    """Of a block, once all work: seconds, and CPU seconds of this process and all below it."""

    seconds: float
    cpu: float


class Meter:
    """What a block costs between the moment at which all work and the last block.

    Args:
        blocks: that will be finished.
        is_warm: whether all processes that do the work have done some.
    """

    def __init__(self, blocks: int, is_warm: Callable[[], bool] = lambda: True) -> None:
        self._blocks, self._is_warm = blocks, is_warm
        self._finished = 0
        self._first: tuple[int, float, dict[int, float]] | None = None
        self._last: tuple[int, float, dict[int, float]] | None = None

    def note(self, *_: Any) -> None:
        """A block is finished."""
        self._finished += 1
        now = time.perf_counter()
        if self._first is None and self._finished > min(_WARM_BLOCKS, self._blocks // 4):
            if self._is_warm():
                self._first = self._finished, now, _cpu_seconds()
        elif self._finished == self._blocks:
            self._last = self._finished, now, _cpu_seconds()

    @property
    def cost(self) -> Cost:
        """For each block."""
        assert self._first is not None, "the work was done before all processes had started"
        assert self._last is not None
        (start, since, before), (stop, until, after) = self._first, self._last
        # of a process that has ended meanwhile nothing is known
        cpu = sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
        return Cost((until - since) / (stop - start), cpu / (stop - start))


def _cpu_seconds() -> dict[int, float]:
    """Of this process and all below it, by their number."""
    own = psutil.Process()
    found = {}
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


class Clock:
    """What the driver has used whenever a block was finished."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.memory: list[int] = []
        self._process = psutil.Process()

    def note(self, *_: Any) -> None:
        """One more."""
        self.cpu.append(time.process_time())
        self.memory.append(self._process.memory_info().rss)

    def milliseconds(self, start: int, stop: int) -> float:
        """CPU time of this process for a unit of work; a block is three: it is loaded, labelled,
        encoded. Commits are few."""
        return round(1000 * (self.cpu[stop] - self.cpu[start]) / (3 * (stop - start)), 3)


class Bench:
    """All parts, in a folder with nothing else in it."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder

    @cached_property
    def corpus(self) -> Dataset:
        """Pictures that take as long to decode as photographs do: they are some."""
        count = self.options.samples
        return make_corpus(self.folder / "corpus", 4, count // 4, 512)

    @cached_property
    def large_corpus(self) -> Dataset:
        """The same, enough of it for what is done in no time."""
        return make_corpus(self.folder / "large", 4, 24 * self.options.samples, 512)

    def overhead(self) -> Iterator[Result]:
        """A network on one worker, and the bare loop."""
        step = Probe(side=224)
        blocks = load_all(self.corpus)
        pairs = [
            (bare_seconds(step, blocks), self._engine_cost([Probe(side=224)], cpus=1).seconds)
            for _ in range(self.options.repeats)
        ]
        yield self._slower("engine/overhead", pairs, "bare loop over decoded blocks", 1.05)

    def decode(self) -> Iterator[Result]:
        """A labeler that takes no time, and decoding alone."""
        corpus = self.large_corpus
        runs = [
            (
                decode_cost(corpus, 2),
                self._engine_cost([Probe()], cpus=2, corpus=corpus),
                decode_cost(corpus, 2, keeps=True),
            )
            for _ in range(self.options.repeats)
        ]
        seconds = [(alone.seconds, engine.seconds) for alone, engine, _ in runs]
        yield self._slower("engine/decode", seconds, "decoding alone in two processes", 1 / 0.9)
        plain = [(alone.cpu, engine.cpu) for alone, engine, _ in runs]
        kept = [(alone.cpu, engine.cpu) for _, engine, alone in runs]
        for name, pairs, baseline in (
            ("engine/decode-cpu", plain, "decoding alone in two processes"),
            ("engine/decode-cpu-kept", kept, "in two that keep their memory"),
        ):
            yield self._slower(name, pairs, baseline, 1 / 0.9, "samples/CPU-s")

    def experts(self) -> Iterator[Result]:
        """Five networks in one run, and the sum of what it cannot be without."""
        blocks = load_all(self.corpus)
        pairs = []
        for _ in range(self.options.repeats):
            steps = five_networks()
            bare = sum(bare_seconds(each, blocks) for each in steps)
            bare += decode_cost(self.corpus, 1).seconds
            pairs.append((bare, len(steps) * self._engine_cost(steps, cpus=1).seconds))
        yield self._slower("engine/experts", pairs, "five bare loops and one decode", 1.15)

    def pools(self) -> Iterator[Result]:
        """A pool that all share, and one for each, from start to end: what separate pools lose,
        they lose in loading networks and in taking turns."""
        pairs = [
            (self._wall_seconds(is_apart=False), self._wall_seconds(is_apart=True))
            for _ in range(self.options.repeats)
        ]
        shared, apart = (
            self.options.samples / statistics.median(column) for column in zip(*pairs, strict=True)
        )
        ratio = statistics.median(apart / shared for shared, apart in pairs)
        yield Result(
            "engine/pools", round(shared, 1), "samples/s", "a pool for each step", round(apart, 1),
            round(ratio, 3), 1.0,
        )  # fmt: skip

    def _wall_seconds(self, is_apart: bool) -> float:
        steps = five_networks()
        for each in steps:
            each.runtime_env = {"env_vars": {"POOL": each.name}} if is_apart else {}
        with ray_session(cpus=2):
            return Engine(plan_wave(self.corpus, steps, relabel=True)).run().wall_seconds

    def driver(self) -> Iterator[Result]:
        """What a unit of work costs the driver, first and last, on both ways of a block."""
        units = self.options.units
        shards, samples = max(1, units // 3000), min(units, 3000) // 3
        corpus = make_corpus(self.folder / "small", shards, samples, 16)
        for way in ("together", "apart"):
            clock = Clock()
            plan = plan_wave(corpus, [Probe(sleeps=0.001, reads="image_size")])
            with ray_session(cpus=2), _limits_of_pace(0.0 if way == "apart" else None):
                Engine(plan, clock.note, block_samples=1).run()
            yield from self._driver_results(clock, f"{way}/{units}")

    def _driver_results(self, clock: Clock, what: str) -> Iterator[Result]:
        end = len(clock.cpu) - 1
        tenth = end // 10
        value, first, last = (
            clock.milliseconds(*part)
            for part in ((tenth, end), (tenth, 2 * tenth), (end - tenth, end))
        )
        yield Result(
            f"engine/driver/{what}", value, "ms/unit", "the goal", 3.0, round(value / 3, 3), 1.0,
            True,
        )  # fmt: skip
        # a tenth of fewer takes a fraction of a second, and says more of that than of a trend
        flat = 1.1 if self.options.units >= _MANY_UNITS else 0
        yield Result(
            f"engine/driver-flat/{what}", last, "ms/unit", "the second tenth of the units",
            first, round(last / first, 3), flat, True,
        )  # fmt: skip
        early, late = (clock.memory[at] / 2**20 for at in (2 * tenth, end))
        yield Result(
            f"engine/driver-memory/{what}", round(late), "MiB", "after a fifth of the units",
            round(early), round(late / early, 3), 1.1, True,
        )  # fmt: skip

    def plan(self) -> Iterator[Result]:
        """How long a restart over a finished dataset plans."""
        step = Probe()
        root = make_finished(self.folder / "finished", step, self.options.shards)
        seconds = []
        for _ in range(self.options.repeats):
            started = time.perf_counter()
            plan = plan_wave(Dataset.open(root), [step])
            seconds.append(time.perf_counter() - started)
            assert plan.is_empty
        value = statistics.median(seconds)
        yield Result(
            f"engine/plan/{self.options.shards}", round(value, 3), "s", "the goal", 5.0,
            round(value / 5, 3), 1.0, True,
        )  # fmt: skip

    def _engine_cost(
        self, steps: Sequence[Probe], cpus: int, corpus: Dataset | None = None
    ) -> Cost:
        """Of each block and step, once as many workers as CPUs have loaded all steps."""
        loaded = Path(tempfile.mkdtemp(dir=self.folder))
        for each in steps:
            each.loaded = str(loaded)
        plan = plan_wave(corpus or self.corpus, steps, relabel=True)
        meter = Meter(count_blocks(plan), lambda: len(list(loaded.iterdir())) == cpus * len(steps))
        with ray_session(cpus=cpus):
            Engine(plan, meter.note).run()
        return meter.cost

    def _slower(
        self,
        name: str,
        pairs: Sequence[tuple[float, float]],
        baseline: str,
        goal: float,
        unit: str = "samples/s",
    ) -> Result:
        bare, engine = (
            BLOCK_SAMPLES / statistics.median(column) for column in zip(*pairs, strict=True)
        )
        ratio = statistics.median(engine / bare for bare, engine in pairs)
        return Result(
            name, round(engine, 1), unit, baseline, round(bare, 1), round(ratio, 3),
            round(goal, 3), True,
        )  # fmt: skip


def count_blocks(plan: Plan) -> int:
    """That a run of a plan of which nothing is done finishes, of all its steps."""
    shards = sum(-(-each // BLOCK_SAMPLES) for each in plan.samples.values())
    return len(plan.steps) * shards


@contextmanager
def _limits_of_pace(limit: float | None) -> Iterator[None]:
    """With 0, no step is light, and blocks are handed on from worker to worker."""
    kept = pace.LIGHT, pace.BRIEF
    if limit is not None:
        pace.LIGHT = pace.BRIEF = limit
    try:
        yield
    finally:
        pace.LIGHT, pace.BRIEF = kept


def five_networks() -> list[Probe]:
    """Of five speeds."""
    return [Probe(name, side) for name, side in _NETWORKS.items()]


def make_corpus(folder: Path, num_shards: int, samples: int, side: int) -> Dataset:
    """A dataset of parts of a photograph, `side` pixels wide."""
    photo = Image.fromarray(skimage.data.astronaut()).resize((640, 640))
    random = np.random.default_rng(0)
    dataset = Dataset.open(str(folder), create=True)
    writer = dataset.writer(modality("rgb"), Producer(name="bench", version="1"), {}, num_shards)
    for shard in range(num_shards):
        payloads = []
        for _ in range(samples):
            left, top = random.integers(0, 640 - side, 2)
            part = photo.crop((left, top, left + side, top + side * 3 // 4))
            payloads.append(encode_label(modality("rgb"), np.asarray(part)))
        keys = [f"{shard:06d}-{row:06d}" for row in range(samples)]
        writer.commit(shard, keys, payloads=payloads)
    dataset.publish([writer.finish()], "bench")
    return dataset


def make_finished(folder: Path, step: Step, num_shards: int) -> str:
    """A finished dataset of large shards, as far as planning looks: manifests and tables."""
    dataset = Dataset.open(str(folder), create=True)
    made = Producer(name="bench", version="1")
    writer = dataset.writer(modality("rgb"), made, {}, num_shards)
    rgb = _tables(str(folder), writer.lineage)
    dataset.publish([rgb], "bench")
    labels = dataset.writer(modality("saliency"), step.producer(), {"rgb": rgb}, num_shards)
    dataset.publish([_tables(str(folder), labels.lineage)], "bench")
    return str(folder)


def _tables(url: str, lineage: Lineage) -> VersionEntry:
    sizes = tuple(range(50_000, 51_000))
    records = [
        ShardRecord(
            index=index, samples=len(sizes), bytes=sum(sizes), sha256=f"{index:064x}",
            keys_sha256=f"{index:064x}", member_sizes=sizes,
        )
        for index in range(lineage.shards)
    ]  # fmt: skip
    entry = VersionEntry(
        **lineage.model_dump(),
        folder=lineage.modality, samples=len(sizes) * len(records), failed=0,
        bytes=sum(sizes) * len(records),
        content_sha256=contents_digest([each.content_sha256 for each in records]),
    )  # fmt: skip
    write_tables(Storage(url), entry, records, [])
    return entry


def _places(dataset: Dataset) -> list[tuple[str, str, int, range]]:
    return [
        (dataset.url, dataset.head.id, shard, range(start, min(start + BLOCK_SAMPLES, samples)))
        for shard, samples in enumerate(dataset.shard_column("rgb", "samples"))
        for start in range(0, samples, BLOCK_SAMPLES)
    ]


def load_all(dataset: Dataset) -> list[Block]:
    """All blocks, decoded."""
    return [_load(place) for place in _places(dataset)]


def _load(place: tuple[str, str, int, range]) -> Block:
    url, snapshot, shard, rows = place
    return load_block(url, snapshot, ["rgb"], shard, rows, 512)


def _load_only(place: tuple[str, str, int, range]) -> None:
    _load(place)


def _begin(keeps: bool, started: Any) -> None:
    if keeps:
        keep_memory()
    started.release()


def decode_cost(dataset: Dataset, processes: int, keeps: bool = False) -> Cost:
    """Of each block, in so many processes that do nothing else.

    Args:
        keeps: have them keep what memory they free, as the engine's workers do.
    """
    spawn = multiprocessing.get_context("spawn")
    started = spawn.Semaphore(0)
    places = _places(dataset)
    meter = Meter(len(places))
    with spawn.Pool(processes, _begin, (keeps, started)) as pool:
        for _ in range(processes):
            started.acquire()
        for each in pool.imap_unordered(_load_only, places):
            meter.note(each)
    return meter.cost


def bare_seconds(step: Step, blocks: Sequence[Block]) -> float:
    """For each block, in this process."""
    step.load("cpu")
    batches = Batches(step)
    meter = Meter(len(blocks))
    for block in blocks:
        meter.note(run_step(batches, block, []))
    return meter.cost.seconds


def main() -> None:
    """Print the results."""
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        show_parts(Bench(options, Path(folder)), options.only, options.json)


if __name__ == "__main__":
    main()
