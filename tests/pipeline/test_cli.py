"""The program: help for every verb, one message for a mistake, JSON for programs."""

import json
import subprocess
import sys

import pytest
from PIL import Image

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
        (["labelers", "shw"], "expected list, show or check"),
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
