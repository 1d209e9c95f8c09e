"""`fourmill generate`: photographs and sentences in, pictures and labels out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.train.world import World

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import decode_label, encode_label
from fourmill.manifests.modalities import modality
from fourmill.pipeline.cli import main


@pytest.fixture
def photo(world: World, tmp_path: Path) -> Path:
    path = tmp_path / "my photo.jpg"
    path.write_bytes(encode_label(modality("rgb"), world.images["coffee"]))
    return path


def run(*words: object) -> int:
    return main(["generate", *map(str, words)])


def test_a_photograph_gives_depth_and_a_caption_as_a_picture_and_as_files(
    world, photo, tmp_path, capsys
):
    panel, out = tmp_path / "new" / "out.png", tmp_path / "files"
    code = run(
        world.run, "--in", photo, "--to", "depth,caption", "--panel", panel, "--out", out, "--json"
    )
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert [each["sample"] for each in report["samples"]] == ["my photo"]
    assert isinstance(report["samples"][0]["caption"], str)
    depth = decode_label(modality("depth"), (out / "0000.tok_depth@32.png").read_bytes())
    assert np.asarray(depth).shape == (32, 32)
    assert (out / "0000.tok_caption.txt").read_text() == report["samples"][0]["caption"]
    with Image.open(panel) as image:
        assert image.width > 3 * 160  # the photograph, depth, caption


def test_a_sentence_gives_pictures_which_differ_between_variants_and_not_between_runs(
    world, tmp_path
):
    def made(name: str) -> list[bytes]:
        out = tmp_path / name
        words = ("--text", "a cup of coffee", "--to", "rgb", "--variants", 2, "--out", out)
        assert run(world.file, *words, "--set", "temperature=1", "--panel", out / "p.png") == 0
        return [each.read_bytes() for each in sorted(out.glob("*.tok_rgb@32.*"))]

    first, second = made("one")
    assert first != second
    assert made("again") == [first, second]


def test_held_out_samples_are_taken_where_nothing_is_given(world, tmp_path, capsys):
    panel = tmp_path / "held-out.png"
    assert run(world.run, "--inputs", "caption", "--samples", 2, "--panel", panel, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [each["sample"] for each in report["samples"]] == ["rocket", "clock"]
    assert panel.is_file()


def test_labels_of_files_and_a_plan_are_taken(world, tmp_path, capsys):
    depth = tmp_path / "depth.png"
    depth.write_bytes(encode_label(modality("depth"), world.depths["coffee"]))
    plan = tmp_path / "plan.yaml"
    plan.write_text("- {target: rgb, scheme: roar, steps: 2}\n- {target: caption}\n")
    panel = tmp_path / "p.png"
    words = ("--given", f"depth={depth}", "--plan", plan, "--panel", panel, "--json")
    assert run(world.run, *words) == 0
    assert "caption" in json.loads(capsys.readouterr().out)["samples"][0]


def test_each_target_may_be_generated_apart_from_the_others(world, photo, tmp_path):
    def files(*words: str) -> bytes:
        out = tmp_path / "-".join(("out", *words))
        run(world.run, "--in", photo, "--to", "depth,caption", *words, "--out", out,
            "--panel", out / "p.png")  # fmt: skip
        return (out / "0000.tok_caption.txt").read_bytes()

    alone = tmp_path / "alone"
    run(world.run, "--in", photo, "--to", "caption", "--out", alone, "--panel", alone / "p.png")
    assert files("--apart") == (alone / "0000.tok_caption.txt").read_bytes()


def test_conditions_are_weighed_by_the_names_that_people_use_on_top_of_a_preset(world, tmp_path):
    depth = tmp_path / "depth.png"
    depth.write_bytes(encode_label(modality("depth"), world.depths["coffee"]))

    def picture(name: str, *words: str) -> bytes:
        out = tmp_path / name
        given = ("--text", "a cup of coffee", "--given", f"depth={depth}", "--to", "rgb")
        assert run(world.run, *given, *words, "--out", out, "--panel", out / "p.png") == 0
        return next(out.glob("*.tok_rgb@32.*")).read_bytes()

    preset = ("--preset", "from-text", "--set", "guidance=1", "steps=2")
    near = picture("near", *preset, "rgb.weights={caption: 4, depth: 1}")
    assert near == picture("again", *preset, "rgb.weights={caption: 4, depth: 1}")
    assert near != picture("far", *preset, "rgb.weights={caption: -4, depth: 1}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", " "], "an empty text says nothing"),
        (["--text", "a cat", "--to", "dept"], "did you mean 'depth'"),
        (["--text", "a cat", "--inputs", "depth"], "--inputs is for held-out samples"),
        (["--text", "a cat", "--set", "heat=1"], "option of generation"),
        (["--text", "a cat", "--preset", "from-tex"], "did you mean 'from-text'"),
        (["--text", "a cat", "--set", "rgb.weights={captoin: 1}"], "did you mean 'caption'"),
        (["--text", "a cat", "--set", "temperature=hot"], "temperature"),
        (["--text", "a cat", "--to", "depth", "--set", "depth.scheme=autoregressive"], "maskgit"),
        (["--text", "a", "b", "--in", "x.jpg", "y.jpg", "z.jpg"], "x.jpg"),
        (["--given", "depth"], "depth=depth.png"),
        (["--variants", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_remedy(world, tmp_path, capsys, words, message):
    assert run(world.run, *words, "--panel", tmp_path / "p.png") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.png").exists()


def test_a_panel_that_is_named_as_no_picture_is_refused_before_the_work(world, tmp_path, capsys):
    assert run(world.run, "--text", "a cat", "--panel", tmp_path / "panel") == 2
    assert "such as panel.png" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_named(world, tmp_path, capsys):
    file = tmp_path / "notes.jpg"
    file.write_text("no picture")
    assert run(world.run, "--in", file, "--panel", tmp_path / "p.png") == 2
    assert f"{file}: neither JPEG, PNG nor WebP" in capsys.readouterr().err


def test_a_checkpoint_without_a_run_has_no_held_out_samples(world, tmp_path):
    weights = tmp_path / "m.safetensors"
    assert main(["convert", str(world.run), str(weights), "--to", "fourmill"]) == 0
    from fourmill.train.generating import generate

    with pytest.raises(ConfigError, match="say what is given"):
        generate(str(weights), panel=tmp_path / "p.png")
    with pytest.raises(UnknownNameError):
        generate(str(weights), given=("sound=a.wav",), panel=tmp_path / "p.png")
