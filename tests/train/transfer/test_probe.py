"""Features of a dataset, and what can be told from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.pipeline.cli import main
from fourmill.train.transfer.features import (
    Extraction,
    Features,
    read_extraction,
    read_features,
    write_features,
)
from fourmill.train.transfer.probe import probe


@pytest.fixture
def classes_file(tmp_path: Path) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text("classes: {amber: ['amber/*'], azure: ['azure/*'], moss: ['moss/*']}")
    return path


def test_features_are_one_row_a_picture_with_its_key(
    tinted: Dataset, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["features", str(model_file), tinted.url, "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"out": str(tmp_path), "samples": {"train": 18, "val": 6}, "dim": 32}
    found = read_features(tmp_path, "val")
    assert found.keys == tuple(tinted.shard("rgb", 3).keys)
    assert found.values.shape == (6, 32)
    again = tmp_path / "again"
    main([*words[:-3], "--out", str(again), "--batch-size", "5"])
    other = read_features(again, "val").values
    np.testing.assert_allclose(other, found.values, rtol=1e-4, atol=1e-5)
    assert json.loads((again / "features.json").read_text())["snapshot"] == tinted.head.id


def test_a_probe_tells_tints_far_better_than_chance(
    tinted: Dataset, model_file: Path, classes_file: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "probe.json"
    words = ["probe", str(model_file), tinted.url, "--label", "source.file"]
    words += ["--classes", str(classes_file), "--out", str(out), "--json"]
    assert main([*words, "--untrained"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert report["classes"] == ["amber", "azure", "moss"]
    assert report["chance"] == pytest.approx(1 / 3)
    assert report["linear"]["top1"] > 0.8
    assert report["linear"]["low"] <= report["linear"]["top1"] <= report["linear"]["high"]
    assert report["neighbours"]["top1"] > 0.5
    assert report["untrained"]["top1"] > 0.5  # tints need no training
    # features that were written before give the same
    main(["features", str(model_file), tinted.url, "--out", str(tmp_path / "f")])
    main([*words[:-3], "--features", str(tmp_path / "f"), "--json"])
    again = json.loads(capsys.readouterr().out)
    assert (again["linear"], again["untrained"]) == (report["linear"], None)
    other = ["probe", "runs/other", *words[2:-3], "--features", str(tmp_path / "f")]
    assert main(other) != 0
    assert f"has features of {model_file}, not of runs/other" in capsys.readouterr().err


def test_features_that_were_not_written_to_the_end_are_refused(tmp_path: Path) -> None:
    about = Extraction("m", "s", 32, "mean")
    one = Features(np.zeros((2, 3), np.float32), ("a", "b"))
    write_features({"train": one, "val": one}, about, tmp_path)
    assert read_features(tmp_path, "val").keys == ("a", "b")
    assert read_extraction(tmp_path) == about
    (tmp_path / "val-keys.npy").unlink()
    (tmp_path / "val-keys.npy").mkdir()  # which the next writing fails at
    with pytest.raises(IsADirectoryError):
        write_features({"train": one, "val": one}, about, tmp_path)
    with pytest.raises(ConfigError, match="no whole features"):
        read_features(tmp_path, "train")


def test_features_that_say_nothing_stay_near_chance(tinted: Dataset) -> None:
    from fourmill.train.transfer.classes import classify

    patterns = {name: (f"{name}/*",) for name in ("amber", "azure", "moss")}
    classified = classify(tinted, tinted.head, "source.file", patterns)
    rng = np.random.default_rng(0)
    features = {
        split: Features(rng.normal(size=(len(each), 8)).astype(np.float32), each.keys)
        for split, each in (("train", classified.train), ("val", classified.val))
    }
    assert probe(features, classified).linear.low < 0.5


def test_what_cannot_be_probed_is_told(
    tinted: Dataset, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fourmill.train.transfer.commands import features, probe

    with pytest.raises(UnknownNameError, match=r"'sorce'; did you mean 'source'"):
        probe(str(model_file), tinted.url, "sorce.file")
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("label: source")
    with pytest.raises(ConfigError, match="has no `classes`"):
        probe(str(model_file), tinted.url, "source.file", nothing)
    with pytest.raises(UnknownNameError, match=r"split called 'test'"):
        features(str(model_file), tinted.url, tmp_path, ("test",))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_features(tmp_path, "train")
    assert main(["probe", str(tmp_path / "no"), tinted.url, "--label", "source.file"]) == 2
