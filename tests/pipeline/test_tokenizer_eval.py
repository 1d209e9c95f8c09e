"""Tokenizers are judged on held-out samples: a table, JSON, a panel."""

import json

import pytest
from PIL import Image

from fourmill.manifests.modalities import modality
from fourmill.pipeline.cli import main
from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer

pytestmark = pytest.mark.ray

CODES = 64


@pytest.fixture
def judged(make_root, tmp_path):
    """The words of the command, for a tokenizer of photographs and one of captions."""
    dataset = make_root()
    samples = list(dataset.samples(["rgb"], "train"))
    photos = [each["rgb"] for each in samples]
    config = VQTrainConfig(dim=32, steps=5, num_crops=2, batch_size=4)
    folder = tmp_path / "tokenizers"
    train_tokenizer(
        modality("rgb"), 64, 8, CODES, config, photos, [each.shape[:2] for each in photos],
        [each["key"] for each in samples], folder / "tok_rgb@64",
    )  # fmt: skip
    (folder / "tok_caption").mkdir()
    return ["tokenizer", "eval", str(folder), "--root", dataset.url]


def test_a_tokenizer_is_judged_beside_what_it_has_to_beat(judged, tmp_path, capsys):
    panel = tmp_path / "pictures" / "panel.png"
    assert main([*judged, "--panel", str(panel)]) == 0
    table = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
    assert rows["metric"][1:] == ["value", "k-means", "patch", "mean", "better", "than"]
    assert set(rows) >= {"tok_rgb@64", "psnr", "ssim", "lpips_efficientnet_lite0", "codes_used"}
    assert "held-out samples (split val)" in table
    assert max(len(line.rstrip()) for line in table.splitlines()[:8]) <= 80
    with Image.open(panel) as image:
        assert image.width > 12 * 168

    assert main([*judged, "--json", "--samples", "3"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["tokenizer"], found["split"], found["samples"]) == ("tok_rgb@64", "val", 3)
    assert set(found["k_means"]) == set(found["patch_mean"]) >= {"psnr", "ssim"}
    ours, theirs = (found[name]["psnr"] for name in ("metrics", "k_means"))
    assert ("k-means" in found["better_than"]["psnr"]) == (ours > theirs)
    assert 0 < found["metrics"]["codes_used"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("judge FOLDER", "expected show or eval"),
        ("eval FOLDER", "give a dataset with --root"),
        ("eval FOLDER/none --root ROOT", "no tokenizer in it"),
        ("eval FOLDER --root ROOT --samples 0", "found --samples 0"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, capsys, words, message):
    (tmp_path / "tok_rgb@64").mkdir()
    (tmp_path / "tok_rgb@64" / "spec.json").write_text("{}")
    assert main(["tokenizer", *words.replace("FOLDER", str(tmp_path)).split()]) == 2
    assert message in capsys.readouterr().err
