"""What README and docs print is true: commands run, programs run, links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from fourmill.manifests.dataset import Dataset

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*/README.md")),
]  # fmt: skip


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def _commands(page: Path, program: str) -> list[list[str]]:
    lines = "\n".join(_blocks(page, "sh")).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [each for each in words if each and each[0] == program]


_ONE_AFTER_ANOTHER = """
import json, sys
from fourmill.pipeline.cli import main
from fourmill.pipeline.workers import ray_session

with ray_session(cpus=2):
    for words in json.loads(sys.argv[1]):
        code = main(words)
        print(json.dumps([words[0], code]), flush=True)
"""


def _run_one_after_another(
    walk: list[list[str]], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """In one process and one Ray, whose start takes longer than most commands."""
    return subprocess.run(
        [sys.executable, "-c", _ONE_AFTER_ANOTHER, json.dumps(walk)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.packages
def test_the_walk_through_ones_own_folder_runs_as_printed(tmp_path):
    pictures = tmp_path / "Pictures"
    pictures.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).save(pictures / f"{name}.jpg")
        (pictures / f"{name}.txt").write_text(f"a picture called {name}")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # weights stay where they are cached, whatever the home directory
    cache = os.environ.get("FOURMILL_CACHE", str(Path.home() / ".cache" / "fourmill"))
    environment = os.environ | {"HOME": str(tmp_path), "FOURMILL_CACHE": cache}
    walk = [
        [each.replace("~", str(tmp_path)) for each in words[1:]]
        for words in _commands(ROOT / "README.md", "fourmill")
    ]
    assert len(walk) >= 8
    done = _run_one_after_another(walk, tmp_path, environment)
    codes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert codes == [[words[0], 0] for words in walk], f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    (program,) = _blocks(ROOT / "README.md", "python")
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "a picture called" in shown.stdout


@pytest.mark.slow
@pytest.mark.packages
def test_the_walk_through_swapping_an_expert_runs_as_printed(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    walk = [words[1:] for words in _commands(ROOT / "docs" / "relabelling.md", "fourmill")]
    done = _run_one_after_another(walk, tmp_path, dict(os.environ))
    assert done.returncode == 0, done.stderr
    codes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    # something is stale between the new edges and the new tokens: `status` says so by its code
    assert codes == [[words[0], int(place == 5)] for place, words in enumerate(walk)], done.stderr
    assert walk[5][0] == "status"
    assert "tok_canny_edge@112 (stale: canny_edge changed)" in done.stdout
    assert "make again: tok_canny_edge@112" in done.stderr
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    dataset = Dataset.open(str(tmp_path / "demo/work/relabelling/dataset"))
    assert len(dataset.log()) == 1
    assert dataset.modalities["canny_edge"].producer.name == "edges"
    assert {each.state for each in dataset.status().modalities} == {"current"}
    assert dataset.verify(deep=True) == []
    folders = {each.name for each in Path(dataset.url).iterdir() if each.is_dir()}
    assert not [name for name in folders if "edges-fine" in name], folders


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_printed_make_targets_exist(page):
    for words in _commands(page, "make"):
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_printed_verbs_and_options_exist(page, capsys):
    from fourmill.pipeline.cli import VERBS, main

    quoted = re.findall(r"`fourmill ([a-z]+)([^`\n]*)`", page.read_text())
    printed = [(words[1], shlex.join(words[2:])) for words in _commands(page, "fourmill")]
    for verb, rest in quoted + printed:
        both = " ".join([verb, *rest.split()[:1]])
        verb = both if both in VERBS else verb
        assert verb in VERBS, f"{page}: fourmill {verb}"
        options = re.findall(r"--[a-z][a-z-]+", rest)
        if options:
            with pytest.raises(SystemExit):
                main([*verb.split(), "--help"])
            shown = capsys.readouterr().out
            assert all(each in shown for each in options), f"{page}: fourmill {verb} {rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [each for each in targets if not (page.parent / each).exists()] == []
