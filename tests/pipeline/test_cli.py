"""The program: help for every verb, one message for a mistake, JSON for programs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline.cli import VERBS, main

PIPELINE_VERBS = [verb for verb, (place, _) in VERBS.items() if place.startswith("fourmill.pipe")]


def _json(capsys: pytest.CaptureFixture[str], *words: str):
    assert main([*words, "--json"]) in (0, 1)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage: fourmill " + verb in capsys.readouterr().out


def test_the_overview_names_every_verb(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statsu"], "did you mean 'status'"),
        (["labelers", "show", "deth"], "did you mean 'depth'"),
        (["labelers", "shw"], "expected list, show, check or new"),
        (["labelers", "new", "depth"], "there is a labeler of this name"),
        (["labelers", "new", "normal"], "is already defined differently"),
        (["labelers", "new", "My_Expert"], "expected a name of small letters"),
        (["labelers", "new", "mine", "--folder", "ROOT/none"], "No such file"),
        (["label", "ROOT", "-l", "edgse"], "did you mean 'edges'"),
        (["diff", "ROOT", "0123"], "no snapshot"),
        (["status", "ROOT/../photos"], "which is no part of a dataset"),
        (["run", "ROOT/none.yaml"], "No such file"),
        (["view", "ROOT", "--modalities", "captoin"], "did you mean 'caption'"),
        (["view", "ROOT", "--keys", "nobody"], "nobody"),
    ],
)
@pytest.mark.ray
def test_a_mistake_is_one_message_that_helps(make_root, capsys, words, message):
    url = make_root().url
    assert main([each.replace("ROOT", url) for each in words]) in (1, 2)
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.ray
def test_the_life_of_a_dataset_is_told_to_people_and_to_programs(make_root, capsys):
    dataset = make_root()
    state = _json(capsys, "status", dataset.url)
    assert {each["modality"] for each in state["modalities"]} == {"rgb", "caption", "source"}
    (entry,) = _json(capsys, "log", dataset.url)
    assert entry["id"] == dataset.head.id
    assert _json(capsys, "verify", dataset.url, "--deep") == []
    assert _json(capsys, "gc", dataset.url, "--dry-run") == []
    assert main(["status", dataset.url]) == 0
    assert "rgb" in capsys.readouterr().out


@pytest.mark.ray
def test_verify_fails_when_a_file_is_damaged(make_root, capsys):
    dataset = make_root()
    path = dataset.shard("caption", 0).url
    with open(path, "r+b") as stream:
        stream.seek(600)
        stream.write(b"!")
    assert main(["verify", dataset.url, "--deep"]) == 1
    assert "shard-000000.tar" in capsys.readouterr().out


@pytest.mark.ray
def test_view_draws_a_sheet_and_a_page(make_root, tmp_path):
    url = make_root().url
    sheet, page = tmp_path / "sheet.png", tmp_path / "page.html"
    words = ["view", url, "--png", str(sheet), "--html", str(page), "--samples", "3"]
    assert main(words) == 0
    with Image.open(sheet) as image:
        assert min(image.size) > 300
    text = page.read_text()
    assert "http://" not in text
    assert "https://" not in text


def test_what_only_looks_does_not_wait_for_heavy_libraries():
    code = (
        "import sys; from fourmill.pipeline import cli; "
        "import fourmill.pipeline.commands.life, fourmill.pipeline.commands.build; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.ray
def test_a_modality_that_another_labeler_made_is_replaced_only_when_asked(make_root, capsys):
    dataset = make_root()
    canny = modality("canny_edge")
    writer = dataset.writer(
        canny, Producer(name="pencil", version="1"), {}, dataset.head.num_shards
    )
    blank = encode_label(canny, np.zeros((8, 8), np.uint8))
    for shard in range(dataset.head.num_shards):
        keys = dataset.shard("rgb", shard).keys
        writer.commit(shard, keys, payloads=[blank] * len(keys))
    dataset.publish([writer.finish()], "pencil")
    assert main(["label", dataset.url, "-l", "edges"]) == 2
    said = capsys.readouterr().err
    assert "canny_edge already, made by pencil: --relabel makes a new version with edges" in said
    assert main(["label", dataset.url, "-l", "edges", "--relabel"]) == 0
    head = Dataset.open(dataset.url).head
    assert head.modalities["canny_edge"].producer.name == "edges"


def test_the_catalogue_says_what_a_labeler_costs_and_what_it_may_be_used_for(capsys):
    (dpt,) = (each for each in _json(capsys, "labelers", "list") if each["name"] == "dpt")
    assert dpt["weights"].startswith("hub Intel/dpt-hybrid-midas at ")
    assert (dpt["writes"], dpt["alternative"], dpt["missing"]) == (["depth"], True, [])
    assert (dpt["weights_mb"], dpt["licence"]) == (490, "Apache-2.0")
