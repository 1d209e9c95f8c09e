"""Whatever dies, breaks or runs out of memory: what can be labelled is, and the rest is told."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ray import cloudpickle

from fourmill.labelers.base import Sample
from fourmill.manifests.dataset import Dataset, VersionWriter
from fourmill.manifests.errors import FourmillError
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline import faults
from fourmill.pipeline.engine import Engine
from fourmill.pipeline.plan import plan_wave
from fourmill.pipeline.report import Report
from fourmill.pipeline.steps import Outcome, Step

pytestmark = pytest.mark.ray
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test files


class Mean(Step):
    """The mean of each picture, as `saliency` of one pixel."""

    name = "mean"
    reads = ("rgb",)
    writes = ("saliency",)
    max_side = 64

    def producer(self) -> Producer:
        return Producer(name=self.name, version="1")

    def load(self, device: str) -> None:
        pass

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        for each in batch:
            self.look(each)
        return [{"saliency": np.full((1, 1), each["rgb"].mean(), np.uint8)} for each in batch]

    def look(self, sample: Sample) -> None:
        """Something may happen here."""


class Crashes(Mean):
    """A codec with a bug that a sample reveals."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def look(self, sample: Sample) -> None:
        if sample["key"].startswith(self.keys):
            ctypes.string_at(0)


class Murdered(Mean):
    """A worker that somebody kills from outside, once."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def look(self, sample: Sample) -> None:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Greedy(Mean):
    """A network whose device holds two samples."""

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().run(batch)


class Elsewhere(Mean):
    """A labeler with packages of its own."""

    def __init__(self) -> None:
        self.runtime_env = {"env_vars": {"FOURMILL_TEST": "here"}}

    def look(self, sample: Sample) -> None:
        assert os.environ["FOURMILL_TEST"] == "here"


class Crowd(Mean):
    """A labeler that kills its worker while it is loaded."""

    def load(self, device: str) -> None:
        os._exit(1)


def _label(dataset: Dataset, step: Step) -> tuple[Dataset, Report]:
    plan = plan_wave(dataset, [step])
    report = Engine(plan).run()
    dataset.publish([each.finish() for each in plan.steps[step.name].writers.values()], "label")
    return dataset, report


def _contents(dataset: Dataset, modality: str = "saliency") -> list[bytes]:
    return [Path(each.url).read_bytes() for each in dataset.shards(modality)]


def test_a_sample_that_kills_its_workers_is_found_and_the_others_are_labelled(make_root):
    dataset, report = _label(make_root(samples_per_shard=5), Crashes("rocket-3"))
    (failure,) = dataset.failures("saliency")
    assert failure.key.startswith("rocket-3")
    assert "SIGSEGV in string_at" in failure.message
    assert report.samples["mean"] == dataset.modalities["saliency"].samples == 24
    assert report.failed["mean"] == 1
    assert report.deaths >= 2
    assert dataset.verify(deep=True) == []


def test_a_worker_killed_from_outside_costs_no_sample_and_no_byte(make_root, tmp_path):
    undisturbed, _ = _label(make_root("undisturbed", 12), Mean())
    dataset, report = _label(make_root("killed", 12), Murdered(tmp_path / "killed-once"))
    assert report.deaths == 1
    assert dataset.failures("saliency") == []
    assert _contents(dataset) == _contents(undisturbed)


def test_a_device_out_of_memory_gets_smaller_batches_and_says_so(make_root, caplog):
    dataset, report = _label(make_root(samples_per_shard=12), Greedy())
    assert report.batch_sizes == {"mean": 2} or report.batch_sizes == {"mean": 1}
    assert report.failed["mean"] == 0
    assert "mean: the device ran out of memory with batches of 16 samples" in caplog.text
    assert dataset.failures("saliency") == []


def test_a_labeler_runs_in_the_environment_that_it_declares(make_root):
    _, report = _label(make_root(samples_per_shard=12), Elsewhere())
    assert report.failed["mean"] == 0


def test_a_labeler_that_kills_workers_while_it_is_loaded_stops_the_run(make_root, monkeypatch):
    monkeypatch.setattr(faults, "BACKOFF_SECONDS", 0.05)
    with pytest.raises(FourmillError, match="mean cannot go on, for it cannot be loaded"):
        _label(make_root(samples_per_shard=12), Crowd())


class Shaky(VersionWriter):
    """A writer whose store fails now and then.

    Attributes:
        shard: where it does.
        marks: folder with a file for every time that it did.
    """

    shard: int
    marks: Path
    times: int
    dies: bool

    def commit(self, index, *arguments, **options):
        if index != self.shard or len(list(self.marks.iterdir())) >= self.times:
            return super().commit(index, *arguments, **options)
        (self.marks / str(len(list(self.marks.iterdir())))).touch()
        if self.dies:
            super().commit(index, *arguments, **options)
            os._exit(1)  # after the deed, before the answer
        raise OSError("the store is out of breath")


@pytest.fixture
def shaken(make_root, tmp_path, monkeypatch):
    """A function that labels into a store that fails at one shard, so many times."""
    monkeypatch.setattr(faults, "BACKOFF_SECONDS", 0.05)

    def label(times: int, dies: bool = False) -> tuple[Dataset, Report]:
        dataset = make_root(samples_per_shard=8)
        plan = plan_wave(dataset, [Mean()])
        (writer,) = plan.steps["mean"].writers.values()
        writer.__class__ = Shaky
        writer.shard, writer.marks, writer.times, writer.dies = 1, tmp_path / "marks", times, dies
        writer.marks.mkdir()
        report = Engine(plan).run()
        dataset.publish([writer.finish()], "label")
        return dataset, report

    return label


def test_a_store_that_recovers_is_waited_for(shaken):
    dataset, report = shaken(times=2)
    assert dataset.modalities["saliency"].samples == 24
    assert report.given_up == {}


def test_a_commit_whose_worker_dies_is_there_once(shaken):
    dataset, report = shaken(times=1, dies=True)
    assert report.samples["mean"] == dataset.modalities["saliency"].samples == 24
    table = dataset.shard_column("saliency", "index")
    assert table == list(range(dataset.head.num_shards))
    assert dataset.verify(deep=True) == []


def test_a_shard_that_cannot_be_written_does_not_hold_the_others_up(shaken, tmp_path):
    with pytest.raises(FourmillError) as stop:
        shaken(times=1000)
    assert "1 of 4 shards could not be finished" in str(stop.value)
    assert "the store is out of breath" in str(stop.value)
    dataset = Dataset.open(str(tmp_path / "root"))
    (left,) = plan_wave(dataset, [Mean()]).work
    assert left == 1


def test_a_picture_that_cannot_be_read_any_more_is_recorded_and_marked(make_root):
    dataset = make_root(samples_per_shard=12)
    shard = dataset.shard("rgb", 0)
    row = 3
    offset = Path(shard.url).read_bytes().index(shard.payload(row))
    with open(shard.url, "r+b") as stream:
        stream.seek(offset)
        stream.write(b"\0" * 64)
    dataset, _ = _label(Dataset.open(dataset.url), Mean())
    (failure,) = dataset.failures("saliency")
    assert failure.key == shard.keys[row]
    assert failure.stage == "decode"


@pytest.mark.slow
def test_no_other_cluster_is_joined_by_accident(tmp_path):
    code = (
        "import ray; from fourmill.pipeline.workers import ray_session\n"
        "with ray_session(cpus=1): print(len(ray.nodes()), ray.cluster_resources()['CPU'])"
    )
    environment = os.environ | {"RAY_ADDRESS": "192.0.2.99:6379", "PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1.0"]
