"""Labelling: complete, once, in the same bytes, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle

from fourmill.labelers.base import Sample
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, FourmillError
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline import pace
from fourmill.pipeline.cli import main
from fourmill.pipeline.engine import Engine
from fourmill.pipeline.plan import plan_wave, waves
from fourmill.pipeline.steps import Outcome, Step

pytestmark = pytest.mark.ray
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test files


class Brightness(Step):
    """The mean of each picture, as `saliency` of one pixel; what it does else is up to the test."""

    name = "brightness"
    reads = ("rgb",)
    writes = ("saliency",)
    max_side = 64

    def __init__(self, version: int = 1, dies_once: Path | None = None, refuses: str = "") -> None:
        self.version, self.dies_once, self.refuses = version, dies_once, refuses

    def producer(self) -> Producer:
        return Producer(name=self.name, version=str(self.version))

    def load(self, device: str) -> None:
        pass

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        if self.dies_once is not None and not self.dies_once.exists():
            self.dies_once.touch()
            os._exit(1)
        for each in batch:
            if self.refuses == "all" or each["key"].startswith(self.refuses or "none"):
                raise ValueError("it is not to my liking")
        return [{"saliency": np.full((1, 1), each["rgb"].mean(), np.uint8)} for each in batch]


class Darkness(Brightness):
    """Another labeler that makes the same modality."""

    name = "darkness"


class Unloadable(Brightness):
    """A labeler whose weights are broken."""

    def load(self, device: str) -> None:
        raise ValueError("no weights here")


class Copy(Step):
    """`saliency` again as `canny_edge`: a step that reads what another one stores."""

    name = "copy"
    reads = ("saliency",)
    writes = ("canny_edge",)

    def producer(self) -> Producer:
        return Producer(name=self.name, version="1")

    def load(self, device: str) -> None:
        pass

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        return [{"canny_edge": each["saliency"]} for each in batch]


def _run(root: str, steps: Sequence[Step], relabel: bool = False) -> Dataset:
    for wave in waves(steps):
        dataset = Dataset.open(root)
        plan = plan_wave(dataset, wave, relabel=relabel)
        if plan.is_empty:
            continue
        Engine(plan).run()
        entries = [w.finish() for each in plan.steps.values() for w in each.writers.values()]
        dataset.publish(entries, "label")
    return Dataset.open(root)


def test_labels_come_out_aligned_and_a_second_run_has_nothing_to_do(make_root):
    root = make_root().url
    dataset = _run(root, [Copy(), Brightness()])
    assert dataset.verify(deep=True) == []
    keys = [dataset.shard(name, 1).keys for name in ("rgb", "saliency", "canny_edge")]
    assert keys[0] == keys[1] == keys[2]
    head = dataset.head.id
    assert plan_wave(dataset, [Brightness()]).is_empty
    assert _run(root, [Copy(), Brightness()]).head.id == head


def test_blocks_that_stay_in_one_worker_give_the_same_bytes(make_root, tmp_path, monkeypatch):
    made = []
    for limit in (0.0, np.inf):
        for name in ("LIGHT", "BRIEF"):
            monkeypatch.setattr(pace, name, limit)
        root = make_root(f"root-{limit}").url
        steps = [Brightness(dies_once=tmp_path / str(limit), refuses="c")]
        plan = plan_wave(Dataset.open(root), steps)
        together = []
        monkeypatch.setattr(Engine, "_after_block", _noting(Engine._after_block, together))
        report = Engine(plan, block_samples=1).run()
        assert report.deaths == 1
        assert bool(together) == bool(limit)
        (writer,) = plan.steps["brightness"].writers.values()
        made.append(Dataset.open(root).publish([writer.finish()], "label"))
    apart, alike = (each.modalities["saliency"] for each in made)
    assert apart.content_sha256 == alike.content_sha256
    assert apart.failed == alike.failed > 0


def _noting(function: Callable[..., None], calls: list[object]) -> Callable[..., None]:
    def noting(*arguments: object) -> None:
        calls.append(arguments)
        function(*arguments)

    return noting


def test_a_sample_that_fails_is_recorded_alone_and_what_reads_it_says_so(make_root):
    dataset = _run(make_root().url, [Brightness(refuses="rocket-3"), Copy()])
    (failure,) = dataset.failures("saliency")
    assert failure.key.startswith("rocket-3")
    assert "it is not to my liking" in failure.message
    (second,) = dataset.failures("canny_edge")
    assert "needs saliency" in second.message
    labels = [each["saliency"] for each in dataset.samples(["saliency"])]
    assert sum(each is None for each in labels) == 1
    assert len(labels) == 24


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(make_root, tmp_path):
    dataset = _run(make_root().url, [Brightness(dies_once=tmp_path / "died")])
    assert (tmp_path / "died").exists()
    assert dataset.modalities["saliency"].samples == 24
    assert dataset.failures("saliency") == []


def test_a_labeler_that_fails_on_everything_stops_the_run(make_root, monkeypatch):
    monkeypatch.setattr("fourmill.pipeline.faults.MAX_FAILED_SAMPLES_IN_A_ROW", 10)
    root = make_root().url
    with pytest.raises(FourmillError, match="failed one after another"):
        _run(root, [Brightness(refuses="all")])
    assert "saliency" not in Dataset.open(root).modalities


def test_a_new_version_of_a_labeler_makes_what_was_read_from_it_stale(make_root):
    root = make_root().url
    before = _run(root, [Brightness(), Copy()])
    dataset = _run(root, [Brightness(version=2, refuses="rocket-3")])
    state = {each.modality: each.state for each in dataset.status().modalities}
    assert state["saliency"] == "current"
    assert state["canny_edge"] == "stale: saliency changed"
    assert dataset.modalities["saliency"].folder != before.modalities["saliency"].folder
    state = {each.modality: each.state for each in _run(root, [Copy()]).status().modalities}
    assert set(state.values()) == {"current"}


def test_another_labeler_takes_a_modality_over_only_when_asked_to(make_root):
    root = make_root().url
    first = _run(root, [Brightness()])
    assert _run(root, [Darkness()]).head.id == first.head.id
    taken = _run(root, [Darkness()], relabel=True)
    assert taken.modalities["saliency"].producer.name == "darkness"
    (change,) = taken.diff(first.head.id)
    assert change.modality == "saliency"
    assert taken.rollback(first.head.id).modalities == first.head.modalities


def test_steps_that_cannot_be_ordered_are_refused(make_root):
    circle = Copy()
    circle.reads, circle.writes = ("canny_edge",), ("saliency",)
    circle.name = "circle"
    with pytest.raises(ConfigError, match="wait for each other"):
        waves([Copy(), circle])
    with pytest.raises(ConfigError, match="both brightness and circle"):
        waves([Brightness(), circle])
    with pytest.raises(ConfigError, match="copy reads saliency"):
        plan_wave(make_root(), [Copy()])


@pytest.mark.slow
def test_labelling_that_is_killed_goes_on_and_gives_the_same_bytes(make_root):
    undisturbed, killed = make_root("undisturbed", 2), make_root("killed", 2)
    command = [sys.executable, "-m", "fourmill.pipeline.cli"]
    names = ["--labeler", "palette", "edges"]
    assert main(["label", undisturbed.url, *names]) == 0
    process = subprocess.Popen([*command, "label", killed.url, *names], start_new_session=True)
    records = Path(killed.url) / "color_palette" / "_records"
    while process.poll() is None and not (records.is_dir() and len(list(records.iterdir())) > 1):
        time.sleep(0.02)
    assert process.poll() is None, "it was to be killed while it works"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "canny_edge" not in Dataset.open(killed.url).modalities
    assert main(["label", killed.url, *names]) == 0
    one, two = Dataset.open(undisturbed.url), Dataset.open(killed.url)
    for name in ("canny_edge", "color_palette"):
        assert one.modalities[name].content_sha256 == two.modalities[name].content_sha256
    assert two.verify(deep=True) == []


def test_a_labeler_that_cannot_be_loaded_is_told_in_one_message(make_root):
    with pytest.raises(FourmillError, match=r"brightness cannot go on.*no weights here"):
        _run(make_root().url, [Unloadable()])
