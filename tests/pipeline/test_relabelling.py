"""Swapping an expert in one command: compared, current, undone."""

import json

import pytest
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.pipeline.cli import main

pytestmark = pytest.mark.ray


def test_one_command_swaps_an_expert_and_doing_it_again_does_nothing(make_root, tmp_path, capsys):
    url = make_root().url
    assert main(["label", url, "-l", "edges"]) == 0
    before = Dataset.open(url).head
    panel = tmp_path / "panel.jpg"
    words = ["relabel", url, "edges-fine", "--png", str(panel), "--json"]
    assert main(words) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["before"] == before.id
    (agreement,) = done["agreements"]
    assert agreement["modality"] == "canny_edge"
    assert agreement["samples"]["both"] == 24
    assert 0.3 < agreement["means"]["f1"] < 1
    with Image.open(panel) as image:
        assert image.width > 4 * 168
    dataset = Dataset.open(url)
    assert dataset.head.id == done["after"]
    assert dataset.modalities["canny_edge"].producer.name == "edges-fine"
    assert dataset.names == {}
    statistics = {each.entry.modality: each.statistics for each in dataset.quality()}
    assert statistics["canny_edge"]["labels"] == statistics["rgb"]["labels"] == 24
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["before"], again["after"]) == (done["after"], done["after"])
    assert main(["rollback", url, "HEAD~1"]) == 0
    assert Dataset.open(url).modalities == before.modalities


def test_a_run_of_another_dataset_is_refused_before_anything_is_done(make_root, tmp_path, capsys):
    url = make_root().url
    head = Dataset.open(url).head.id
    words = ["relabel", url, "edges-fine", "--config", "configs/relabelling.yaml"]
    assert main(words) == 2
    assert "is of the dataset demo/work/relabelling/dataset, not of" in capsys.readouterr().err
    assert main(["relabel", url, "edges-fin"]) == 2
    assert "did you mean 'edges-fine'" in capsys.readouterr().err
    assert Dataset.open(url).head.id == head
