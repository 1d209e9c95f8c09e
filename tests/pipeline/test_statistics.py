"""Statistics of what a step makes: gathered where blocks are encoded, the same whatever the cut."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from fourmill.labelers.base import Sample
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import SampleError
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline.cli import main
from fourmill.pipeline.commands.quality import bars, narrow
from fourmill.pipeline.steps import Outcome, Step
from fourmill.pipeline.work import commit_shard, encode_block

KEYS = [f"sample-{number}" for number in range(40)]


class Noise(Step):
    """Depth that says nothing; that of every tenth sample is not finite, and one has none."""

    name = "noise"
    reads = ("rgb",)
    writes = ("depth",)

    def producer(self) -> Producer:
        return Producer(name=self.name, version="1")

    def load(self, device: str) -> None:
        pass

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        return [self._one(int(each["key"].split("-")[1])) for each in batch]

    def _one(self, number: int) -> Outcome:
        if number == 7:
            return SampleError("noise", "it has no depth")
        depth = np.random.default_rng(number).random((6, 8)).astype(np.float32)
        if number % 10 == 0:
            depth[0, :3] = np.nan
        return {"depth": depth}


@pytest.fixture
def noise(tmp_path):
    """A function that makes a dataset of noise, cut into blocks of so many samples."""

    def make(block: int) -> Dataset:
        dataset = Dataset.open(str(tmp_path / str(block)), create=True)
        step = Noise()
        writer = dataset.writer(step.definition("depth"), step.producer(), {}, 1)
        cuts = [KEYS[at : at + block] for at in range(0, len(KEYS), block)]
        blocks = [
            encode_block(step, "depth", keys, step.run([{"key": key} for key in keys]), 0.25)
            for keys in cuts
        ]
        assert commit_shard(writer, 0, blocks) == 5
        dataset.publish([writer.finish()], "noise")
        return dataset

    return make


def test_statistics_do_not_depend_on_how_a_shard_is_cut_into_blocks(noise):
    found = [noise(block).quality()[0].statistics for block in (1, 7, 32, 40)]
    assert all(each == found[0] for each in found)
    assert found[0]["labels"] == 35
    assert found[0]["not_finite"] == 4 * 3
    assert found[0]["values"] == 39 * 48


def test_the_time_of_a_sample_has_the_expert_s_own_in_it(noise):
    (found,) = noise(10).quality()
    assert found.seconds_per_sample >= 4 * 0.25 / 40


def test_quality_is_shown_to_people_and_told_to_programs(noise, capsys):
    url = noise(10).url
    assert main(["status", url, "--quality"]) == 0
    shown = capsys.readouterr().out
    assert "odd: depth: 0.6% of the values are not finite (NaN or infinite); look: " in shown
    assert f"fourmill status {url} --failed" in shown
    assert main(["status", url, "--quality", "--json"]) == 0
    quality = json.loads(capsys.readouterr().out)["quality"]["depth"]
    assert quality["statistics"]["labels"] == 35
    assert [each["shard"] for each in quality["findings"]] == [None]
    assert f"0 {bars(narrow(quality['statistics']['histogram'], 24))} 1" in shown
