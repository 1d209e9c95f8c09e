"""The commands of docs/retrieval-and-editing.md run as they are printed, on a smaller dataset."""

import re
import shlex
from pathlib import Path

import pytest
from tests.train.labelled import Labelled

from fourmill.pipeline.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "retrieval-and-editing.md"
TESTED = ("retrieve", "edit", "superres", "generate", "tokenizer")
"""`train` and `tokenize` have tests of their own, and need a dataset's time."""

SMALLER = (("@112", "@32"), ("--size 224", "--size 64"), ("astronaut-1cf3e53081", "rocket"))


def printed() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks)
    for large, small in SMALLER:
        lines = lines.replace(large, small)
    words = [shlex.split(line, comments=True) for line in lines.splitlines()]
    return [each[1:] for each in words if each[:1] == ["fourmill"] and each[1] in TESTED]


def test_the_page_runs_as_printed(
    labelled: Labelled,
    labelled_run: Path,
    labelled_superres: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "demo" / "work" / "builtin"
    work.mkdir(parents=True)
    (work / "run").symlink_to(labelled_run.parent / "run")
    (work / "dataset").symlink_to(labelled.root)
    (work / "tokenizers").mkdir()
    for each in labelled.tokenizers.iterdir():
        (work / "tokenizers" / each.name).symlink_to(each)
    normal = labelled.tokenizers / "tok_rgb@32"  # the small dataset has no normals
    (work / "tokenizers" / "tok_normal@32").symlink_to(normal)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").symlink_to(labelled_run)
    (tmp_path / "configs" / "small-super-resolution.yaml").symlink_to(labelled_superres)
    (tmp_path / "photo.jpg").symlink_to(labelled.photo)
    monkeypatch.chdir(tmp_path)
    commands = printed()
    assert len(commands) == 13
    for words in commands:
        assert main(words) == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"
    for picture in ("nearest.png", "moved.png", "large/panel.png", "large/rocket-depth.png"):
        assert (tmp_path / picture).stat().st_size > 500
