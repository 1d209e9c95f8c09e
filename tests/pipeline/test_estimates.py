"""A dry run says what there is to do, from what is known."""

import json

import pytest

from fourmill.manifests.dataset import Dataset
from fourmill.pipeline.cli import main
from fourmill.pipeline.plan import plan_wave
from fourmill.pipeline.steps import LabelStep

pytestmark = pytest.mark.ray


def _dry_run(url: str, capsys: pytest.CaptureFixture[str], *words: str):
    assert main(["label", url, "-l", "palette", *words, "--dry-run", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["plan"]
    return found


def test_a_dry_run_counts_and_knows_times_of_what_ran_before(make_root, capsys):
    dataset = make_root(samples_per_shard=10)
    found = _dry_run(dataset.url, capsys)
    assert (found["modality"], found["folder"]) == ("color_palette", "color_palette")
    assert (found["shards"], found["num_shards"], found["samples"]) == (3, 3, 24)
    assert found["bytes"] == sum(each.record.bytes for each in dataset.shards("rgb"))
    assert found["seconds"] is None
    assert "color_palette" not in Dataset.open(dataset.url).modalities

    assert main(["label", dataset.url, "-l", "palette"]) == 0
    recorded = sum(Dataset.open(dataset.url).shard_column("color_palette", "seconds"))
    found = _dry_run(dataset.url, capsys, "--max-side", "256", "--relabel")
    assert found["folder"] != "color_palette"
    assert found["seconds"] == pytest.approx(recorded)
    assert main(["label", dataset.url, "-l", "palette", "--max-side", "256", "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert "3 of 3 shards, 24 samples" in shown
    assert "on one worker" in shown


def test_a_finished_dataset_has_nothing_to_do(make_root, capsys):
    url = make_root(samples_per_shard=10).url
    assert main(["label", url, "-l", "palette"]) == 0
    capsys.readouterr()
    assert plan_wave(Dataset.open(url), [LabelStep("palette", 512)]).is_empty
    assert main(["label", url, "-l", "palette", "--dry-run"]) == 0
    assert "nothing to do" in capsys.readouterr().err
