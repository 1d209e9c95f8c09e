"""Editing: what an edit changes, what it leaves, what follows from it, and what is no edit."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.train.labelled import Labelled

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.train import editing_commands
from fourmill.train.editing import changes, edit
from fourmill.train.edits import EXAMPLES, cells_of, parse_edit, touched
from fourmill.train.sampler import Sampler
from fourmill.train.schedules import GenerationStep

ROOT = Path(__file__).parents[2]
BOXES = {
    "instances": [
        {"boxes": [0.25, 0.25, 0.5, 0.5], "class_name": "dog", "score": 1.0},
        {"boxes": [0.5, 0.5, 1.0, 1.0], "class_name": "dining table", "score": 1.0},
    ]
}
RGB, DEPTH = "tok_rgb@32", "tok_depth@32"


@pytest.fixture(scope="module")
def sampler(labelled_run: Path) -> Sampler:
    """One step has taught the model nothing: its inputs are made loud enough to matter."""
    loaded = Sampler.load(labelled_run, device="cpu", dtype="float32")
    for each in loaded.model.inputs.parameters():
        each.data.mul_(100)
    return loaded


def boxes_after(text: str) -> list[tuple[list[float], str]]:
    label = parse_edit(text).apply(BOXES)
    return [(each["boxes"], each["class_name"]) for each in label["instances"]]


def test_a_box_is_moved_resized_renamed_dropped_and_added() -> None:
    dog, table = ([0.25, 0.25, 0.5, 0.5], "dog"), ([0.5, 0.5, 1.0, 1.0], "dining table")
    assert boxes_after("box 0 by 0.25 -0.125") == [([0.5, 0.125, 0.75, 0.375], "dog"), table]
    assert boxes_after("box dog by 0.7 0") == [([0.95, 0.25, 1.0, 0.5], "dog"), table]  # cut off
    assert boxes_after("box dog scale 2") == [([0.125, 0.125, 0.625, 0.625], "dog"), table]
    assert boxes_after("box 1 to 0 0 0.5 1") == [dog, ([0.0, 0.0, 0.5, 1.0], "dining table")]
    assert boxes_after("box dining table class dining room") == [dog, (table[0], "dining room")]
    assert boxes_after("box dining table drop") == [dog]
    assert boxes_after("box add 0 0 0.5 0.5 hot dog")[2] == ([0.0, 0.0, 0.5, 0.5], "hot dog")
    assert BOXES["instances"][0]["boxes"] == dog[0]  # what was given is as it was
    moved = parse_edit("box 0 by 0.25 0").apply(BOXES)
    assert touched(BOXES, moved) == [(0.25, 0.25, 0.5, 0.5), (0.5, 0.25, 0.75, 0.5)]


def test_words_depth_colours_and_numbers_are_changed_alone() -> None:
    assert parse_edit("word Cat small dog").apply("a cat and a catfish") == (
        "a small dog and a catfish"
    )
    depth = np.full((8, 8), 0.5, np.float32)
    shifted = parse_edit("depth by 0.7 in 0 0.5 0.25 1").apply(depth)
    expected = depth.copy()
    expected[4:, :2] = 1
    np.testing.assert_array_equal(shifted, expected)
    beyond = parse_edit("depth by 0.7 in -0.5 0.5 0.25 1.5").apply(depth)
    np.testing.assert_array_equal(beyond, expected)
    palette = [{"2": [[1, 2, 3], [4, 5, 6]]}]
    assert parse_edit("colour 1 7 8 9").apply(palette) == [{"2": [[1, 2, 3], [7, 8, 9]]}]
    known = {"brightness": 10.0, "n_humans": 1}
    assert parse_edit("metadata n_humans 3").apply(known) == {"brightness": 10.0, "n_humans": 3}


def test_cells_are_all_that_a_box_touches() -> None:
    assert cells_of([(0.25, 0.0, 0.5, 0.5)], 4, 4).tolist() == [
        [False, True, False, False], [False, True, False, False], [False] * 4, [False] * 4,
    ]  # fmt: skip
    assert cells_of([(0.3, 0.3, 0.31, 0.6)], 2, 2).tolist() == [[True, False], [True, False]]


def test_a_box_without_area_may_be_taken_away() -> None:
    empty = {"boxes": [0.5, 0.5, 0.5, 0.75], "class_name": "cat", "score": 1.0}
    before = {"instances": [empty]}
    after = parse_edit("box 0 drop").apply(before)
    assert touched(before, after) == [(0.5, 0.5, 0.5, 0.75)]


def test_what_differs_comes_from_the_edit_alone(sampler: Sampler) -> None:
    given = {"det": BOXES, "caption": "a cat"}
    plan = [
        GenerationStep(DEPTH, "roar", 4, temperature=1.0, guidance=4.0),
        GenerationStep(RGB, "maskgit"),
    ]
    moved = edit(sampler, given, [parse_edit("box 0 by 0.2 0")], plan, seed=3)
    assert moved.edited == ("tok_det",)
    assert set(moved.held) == {"caption"}
    assert list(moved.labels) == ["tok_det", DEPTH, RGB]
    shares = changes(sampler, moved)
    assert 0 < shares[DEPTH]["changed"] < 1
    assert set(shares[DEPTH]) == {"changed", "changed_inside", "changed_outside"}
    # an edit that changes nothing changes nothing that follows from it
    still = edit(sampler, given, [parse_edit("box 0 by 0 0")], plan, seed=3)
    assert [each["changed"] for each in changes(sampler, still).values()] == [0, 0]
    for name in (DEPTH, RGB):
        np.testing.assert_array_equal(still.tokens[name][0], moved.tokens[name][0])


def test_depth_keeps_its_tokens_where_no_edit_is(sampler: Sampler, labelled: Labelled) -> None:
    stored = labelled.dataset.tokens(DEPTH)[0][0, 0].astype(np.int64)
    change = parse_edit("depth by 0.5 in 0 0 0.5 0.5")
    plan = [GenerationStep(RGB, "maskgit")]
    before, after = edit(sampler, {"depth": stored}, [change], plan).tokens[DEPTH]
    np.testing.assert_array_equal(before, stored)
    inside = cells_of([(0.0, 0.0, 0.5, 0.5)], 4, 4).ravel()
    assert (before != after)[inside].any()
    assert not (before != after)[~inside].any()


def test_edits_follow_one_another(sampler: Sampler) -> None:
    edits = [parse_edit("box dog class cat"), parse_edit("box cat drop")]
    done = edit(sampler, {"det": BOXES}, edits, [GenerationStep(RGB, "maskgit")])
    before, after = done.labels["tok_det"]
    assert [each["class_name"] for each in before["instances"]] == ["dog", "dining table"]
    assert [each["class_name"] for each in after["instances"]] == ["dining table"]


def test_samples_photographs_and_texts_are_edited_by_the_verb(
    labelled: Labelled,
    labelled_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, panel = str(labelled.root), tmp_path / "new" / "edited.png"
    ways = (
        {"root": root, "key": "chelsea", "edit": ("box dog by 0.2 0",), "hold": ("caption,rgb",)},
        {"root": root, "key": "coffee", "edit": ("metadata brightness 200",)},
        {"text": "a cat", "edit": ("word cat dog",), "set": ("temperature=1",)},
        {"image": labelled.photo, "edit": ("depth by 0.3",), "hold": ("caption",)},
    )
    for way in ways:
        editing_commands.edit(
            str(labelled_run),
            **way,
            to=("rgb,semseg_coarse",),
            panel=panel,
            device="cpu",
            json=True,
        )
        report = json.loads(capsys.readouterr().out)
        assert set(report["changes"]) == {RGB, "tok_semseg_coarse@32"}
        with Image.open(panel) as drawn:
            assert drawn.size[1] > 3 * 160
    assert report["labels"] == {}
    editing_commands.edit(
        str(labelled_run), text="a cat", edit=("word cat dog",), to=("rgb",), panel=panel,
        device="cpu", json=True,
    )  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert report["labels"]["caption"] == {"before": "a cat", "after": "a dog"}


def test_what_is_no_edit_is_told(sampler: Sampler, labelled: Labelled, labelled_run: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of the forms box 0 by"):
        parse_edit("bx 0 by 1 1")
    with pytest.raises(ConfigError, match="could not convert"):
        parse_edit("box 0 by one 1")
    with pytest.raises(
        ConfigError, match=r"there is no box '5'.*there are 0: dog, 1: dining table"
    ):
        parse_edit("box 5 drop").apply(BOXES)
    with pytest.raises(ConfigError, match="there is no box 'cat'"):
        parse_edit("box cat drop").apply(BOXES)
    with pytest.raises(ConfigError, match="has nothing in the picture"):
        parse_edit("box 0 by 2 0").apply(BOXES)
    with pytest.raises(UnknownNameError, match="there is no word in the caption"):
        parse_edit("word dog cat").apply("a rocket")
    with pytest.raises(ConfigError, match="the palette has no colour 3; it has 0: "):
        parse_edit("colour 3 0 0 0").apply([{"1": [[1, 2, 3]]}])
    with pytest.raises(ConfigError, match=r"of 0\.\.255"):
        parse_edit("colour 0 0 0 300").apply([{"1": [[1, 2, 3]]}])
    with pytest.raises(UnknownNameError, match="did you mean 'brightness'"):
        parse_edit("metadata brightnes 1").apply({})
    plan = [GenerationStep(DEPTH, "maskgit")]
    with pytest.raises(ConfigError, match="is edited: it cannot be generated too"):
        edit(sampler, {"depth": np.zeros(16, np.int64)}, [parse_edit("depth by 0.1")], plan)
    with pytest.raises(ConfigError, match="the sample has none"):
        edit(sampler, {"caption": "a cat"}, [parse_edit("box 0 drop")], plan)
    for way in ({}, {"text": " "}, {"root": str(labelled.root)}):
        with pytest.raises(ConfigError, match=r"give one of --root|an empty text"):
            editing_commands.edit(str(labelled_run), ("word a b",), **way, device="cpu")
    for each in EXAMPLES:
        parse_edit(each)


def test_programs_of_the_docs_run_as_printed(
    labelled_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "retrieval-and-editing.md").read_text()
    lines = re.findall(r"^python (examples/\S+) (\S+)", page, re.MULTILINE)
    assert len(lines) == 3
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_bytes(labelled_run.read_bytes())
    monkeypatch.chdir(tmp_path)
    for program, config in lines:
        monkeypatch.setattr(sys, "argv", [program, config])
        runpy.run_path(program, run_name="__main__")
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 4 + 3 + 4  # two held-out samples of two targets
    assert "mean colour" in printed
    assert len(list(tmp_path.glob("*.png"))) == 2 + 3 + 2
