"""Retrieval: what is found, what is refused, and what an index is on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.train.labelled import CAPTIONS, PHOTOS, Labelled

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import (
    ConfigError,
    GenerationError,
    SampleError,
    UnknownNameError,
)
from fourmill.pipeline.cli import main
from fourmill.train import retrieval_commands
from fourmill.train.features import choose_feature, features, possible_features
from fourmill.train.given import Given
from fourmill.train.retrieval import About, Index, build_index, quality
from fourmill.train.sampler import Sampler

ABOUT = About(
    model="m", feature="f", inputs=("rgb",), root="somewhere", snapshot="s", split=None
)  # fmt: skip


def unit(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(folder: Path, vectors: np.ndarray, lists: int | None = None) -> Index:
    keys = [f"k{row:04d}" for row in range(len(vectors))]
    half = len(vectors) // 2
    batches = [(keys[:half], vectors[:half]), (keys[half:], vectors[half:])]
    means = {"rgb": np.zeros(vectors.shape[1], np.float32)}
    return build_index(folder, ABOUT, batches, len(vectors), means, lists)


@pytest.fixture(scope="module")
def sampler(labelled_run: Path) -> Sampler:
    return Sampler.load(labelled_run, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def built(labelled: Labelled, labelled_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "idx"
    retrieval_commands.index(str(labelled_run), str(labelled.root), out, device="cpu")
    return out


def found(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [each["key"] for each in json.loads(capsys.readouterr().out)["results"]]


def test_the_nearest_are_those_with_the_highest_cosine(tmp_path: Path) -> None:
    vectors = unit(300)
    queries = unit(5, seed=1)
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :7]
    nearest = build(tmp_path / "idx", vectors).search(queries, 7)
    np.testing.assert_array_equal(nearest.rows, expected)
    np.testing.assert_allclose(
        nearest.scores, np.take_along_axis(queries @ vectors.T, expected, 1), atol=1e-6
    )


def test_cells_find_what_is_there_and_almost_all_of_the_nearest(tmp_path: Path) -> None:
    centres = np.repeat(unit(8, seed=2), 40, axis=0)
    vectors = centres + 0.05 * unit(320, seed=3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = build(tmp_path / "idx", vectors, lists=8)
    assert index.about.lists == 8
    nearest = index.search(vectors, 10)
    np.testing.assert_array_equal(nearest.rows[:, 0], np.arange(320))
    exact = np.argsort(-(vectors @ vectors.T), axis=1)[:, :10]
    shared = [len({*a} & {*b}) for a, b in zip(nearest.rows, exact, strict=True)]
    assert np.mean(shared) > 9
    one = (tmp_path / "idx" / "centroids.npy").read_bytes()
    build(tmp_path / "idx", vectors, lists=8)
    assert (tmp_path / "idx" / "centroids.npy").read_bytes() == one
    assert [each.name for each in tmp_path.iterdir()] == ["idx"]
    cells = np.load(tmp_path / "idx" / "cells.npy")
    for wrong in (-1, 8, 2**40):  # FAISS would write beyond its lists
        np.save(tmp_path / "idx" / "cells.npy", np.where(np.arange(320) == 7, wrong, cells))
        with pytest.raises(ConfigError, match="names cells beyond the 8"):
            Index(tmp_path / "idx")


def test_ranks_are_counted_exactly_and_equal_vectors_are_no_find(tmp_path: Path) -> None:
    vectors = unit(40)
    index = build(tmp_path / "a", vectors)
    keys = index.keys
    assert quality(index, iter([(keys, vectors)])).recall == {1: 1.0, 5: 1.0, 10: 1.0}
    worst = quality(index, iter([(keys[:1], -vectors[:1])]))
    assert worst.median_rank == 40
    same = build(tmp_path / "b", np.repeat(vectors[:1], 40, axis=0))
    guessed = quality(same, iter([(keys, np.repeat(vectors[:1], 40, axis=0))]))
    assert guessed.median_rank == 20.5
    assert guessed.recall[10] == 0
    with pytest.raises(ConfigError, match="none of the queries is of a sample in the index"):
        quality(index, iter([(["other"], vectors[:1])]))


def test_a_sample_finds_itself_by_what_it_was_indexed_by(
    labelled_run: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retrieval_commands.search(str(labelled_run), built, key="chelsea", device="cpu", json=True)
    assert "chelsea" in found(capsys)
    about = Index(built).about
    assert (about.samples, about.skipped, about.width) == (4, 0, 768)
    assert about.feature == "tok_dinov2_global"


def test_any_modality_retrieves_any_other_and_a_panel_shows_it(
    labelled: Labelled,
    labelled_run: Path,
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    panel = tmp_path / "new" / "panel.png"
    ways = (
        {"text": CAPTIONS[1]},
        {"image": labelled.photo},
        {"key": "coffee", "from_": ("depth", "caption"), "show": ("depth",)},
    )
    for way in ways:
        retrieval_commands.search(
            str(labelled_run), built, **way, k=3, panel=panel, device="cpu", json=True
        )
        assert len(set(found(capsys))) == 3
        with Image.open(panel) as drawn:
            assert drawn.size[0] > 4 * 160
    retrieval_commands.search(
        str(labelled_run), built, evaluate=True, from_=("caption",), device="cpu", json=True
    )
    report = json.loads(capsys.readouterr().out)
    assert (report["queries"], report["samples"]) == (4, 4)
    assert 1 <= report["median_rank"] <= 4
    assert report["guessed"] == {
        "recall@1": 0.25, "recall@5": 1.0, "recall@10": 1.0, "median_rank": 2.5,
    }  # fmt: skip


def test_features_are_vectors_maps_or_the_encoders_mean(sampler: Sampler) -> None:
    maps = "tok_vit_s_focus@32"
    assert possible_features(sampler) == ["tok_dinov2_global", maps, "encoder"]
    assert choose_feature(sampler, None) == "tok_dinov2_global"
    assert choose_feature(sampler, "DINOv2-B14-global") == "tok_dinov2_global"
    with pytest.raises(UnknownNameError, match="Known: encoder, tok_dinov2_global, tok_vit"):
        choose_feature(sampler, "clip")
    conditions = sampler.conditions(2, {"caption": list(CAPTIONS[:2])})
    assert features(sampler, conditions, maps).shape == (2, 384)
    one = features(sampler, conditions, "encoder")
    assert one.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    # what is padded has no say
    alone = features(sampler, sampler.conditions(1, {"caption": [CAPTIONS[1]]}), "encoder")
    np.testing.assert_allclose(alone[0], one[1], atol=1e-5)


def test_damaged_weights_give_no_features_but_an_error(labelled_run: Path) -> None:
    damaged = Sampler.load(labelled_run, device="cpu")
    with torch.no_grad():
        damaged.model.encoder_norm.weight.fill_(float("nan"))
    conditions = damaged.conditions(1, {"caption": [CAPTIONS[0]]})
    with pytest.raises(GenerationError, match="encoder: the model's features are not finite"):
        features(damaged, conditions, "encoder")
    with pytest.raises(GenerationError, match="tok_dinov2_global: the model's scores are not"):
        features(damaged, conditions, "tok_dinov2_global")


def test_what_is_predicted_from_each_modality_has_a_mean_of_its_own(
    sampler: Sampler, built: Path
) -> None:
    index = Index(built)
    assert index.about.kinds[0] == "rgb@32"
    assert {"tok_caption", "tok_depth@32"} < set(index.about.kinds)
    conditions = sampler.conditions(4, {"caption": list(CAPTIONS)})
    mean = features(sampler, conditions, index.about.feature).mean(0)
    np.testing.assert_allclose(index.mean(["tok_caption"]), mean, atol=1e-5)
    both = (index.mean(["tok_caption"]) + index.mean(["tok_det"])) / 2
    np.testing.assert_allclose(index.mean(["tok_det", "tok_caption"]), both, atol=1e-6)
    np.testing.assert_array_equal(index.mean(["other"]), index.mean(["rgb@32"]))


def with_broken_pictures(labelled: Labelled, folder: Path, *keys: str) -> Path:
    return overwritten(labelled, folder, "rgb", b"?", *keys)


def overwritten(labelled: Labelled, folder: Path, modality: str, byte: bytes, *keys: str) -> Path:
    root = folder / "dataset"
    shutil.copytree(labelled.root, root)
    dataset = Dataset.open(str(root))
    for number in range(2):
        shard = dataset.shard(modality, number)
        (file,) = (root / modality).rglob(f"*{number}.tar")
        data = file.read_bytes()
        for row, key in enumerate(shard.keys):
            if key in keys:
                payload = shard.payload(row)
                data = data.replace(payload, byte * len(payload))
        file.write_bytes(data)
    return root


def test_a_broken_file_is_named_and_the_others_are_indexed(
    labelled: Labelled, labelled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = with_broken_pictures(labelled, tmp_path, "chelsea")
    out = tmp_path / "idx"
    words = ["index", str(labelled_run), str(root), "--out", str(out), "--device", "cpu", "--json"]
    assert main(["retrieve", *words]) == 0
    told = capsys.readouterr()
    assert "left out chelsea: decode: " in told.err
    about = json.loads(told.out)
    assert [each["key"] for each in about["failed"]] == ["chelsea"]
    assert (about["samples"], about["skipped"]) == (3, 0)
    index = Index(out)
    assert index.keys == [each for each in PHOTOS if each != "chelsea"]
    assert [each.key for each in index.about.failed] == ["chelsea"]
    retrieval_commands.search(str(labelled_run), out, evaluate=True, device="cpu", json=True)
    report = json.loads(capsys.readouterr().out)
    assert (report["queries"], report["failed"][0]["key"]) == (3, "chelsea")


def test_a_caption_of_blanks_is_one_that_is_missing(
    labelled: Labelled, labelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = overwritten(labelled, tmp_path, "caption", b" ", "chelsea")
    # tokens were made of the caption that was there
    monkeypatch.setattr("fourmill.train.given.stored_as", lambda *_: "caption")
    out = tmp_path / "idx"
    retrieval_commands.index(str(labelled_run), str(root), out, from_=("caption",), device="cpu")
    assert Index(out).keys == [each for each in PHOTOS if each != "chelsea"]
    assert Index(out).about.skipped == 1


def test_where_no_file_can_be_read_there_is_no_index_and_one_is_named(
    labelled: Labelled, labelled_run: Path, tmp_path: Path
) -> None:
    root = with_broken_pictures(labelled, tmp_path, *PHOTOS)
    with pytest.raises(ConfigError, match="no sample has all of rgb@32; astronaut: decode: "):
        retrieval_commands.index(str(labelled_run), str(root), tmp_path / "idx", device="cpu")


def test_a_label_that_no_tokenizer_takes_fails_alone(sampler: Sampler) -> None:
    labels = [{"brightness": 100.0}, {"brightness": "dark"}, {"brightness": 90.0}]
    given = Given(["one", "two", "three"], [0, 1, 2], {"tok_metadata": labels})
    failed: dict[str, str] = {}

    def fail(key: str, error: SampleError) -> None:
        failed[key] = error.reason

    parts = [part.keys for part, _ in retrieval_commands._conditions(sampler, given, fail)]
    assert parts == [["one"], ["three"]]
    assert list(failed) == ["two"]


def test_an_index_of_another_model_is_refused(
    labelled: Labelled, built: Path, tmp_path: Path
) -> None:
    other = labelled.train(tmp_path, seed=1)
    with pytest.raises(ConfigError, match="made by another model"):
        retrieval_commands.search(str(other), built, text="a cat", device="cpu")


def test_an_index_of_a_snapshot_that_is_gone_is_refused(
    labelled: Labelled, labelled_run: Path, built: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "idx"
    copy.mkdir()
    for each in built.iterdir():
        (copy / each.name).write_bytes(each.read_bytes())
    about = json.loads((copy / "index.json").read_bytes())
    (copy / "index.json").write_text(json.dumps(about | {"snapshot": "0" * 64}))
    with pytest.raises(ConfigError, match="make the index again"):
        retrieval_commands.search(str(labelled_run), copy, key=PHOTOS[0], device="cpu")
    (copy / "vectors.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ConfigError, match="not a whole index"):
        Index(copy)


def test_what_is_wrong_is_told(
    labelled: Labelled, labelled_run: Path, built: Path, tmp_path: Path
) -> None:
    run = str(labelled_run)
    with pytest.raises(ConfigError, match="an empty text says nothing"):
        retrieval_commands.search(run, built, text=" ", device="cpu")
    broken = tmp_path / "photo.jpg"
    broken.write_text("no picture")
    with pytest.raises(ConfigError, match=r"photo\.jpg: .*expected a picture"):
        retrieval_commands.search(run, built, image=broken, device="cpu")
    with pytest.raises(UnknownNameError, match=r"there is no sample .* did you mean 'coffee'"):
        retrieval_commands.search(run, built, key="cofee", device="cpu")
    with pytest.raises(UnknownNameError, match=r"Known: .*caption.*depth"):
        retrieval_commands.search(run, built, key="coffee", from_=("dpeth",), device="cpu")
    with pytest.raises(ConfigError, match="give one of --text, --image and --key"):
        retrieval_commands.search(run, built, device="cpu")
    with pytest.raises(ConfigError, match="is there, and is no index"):
        retrieval_commands.index(run, str(labelled.root), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="--lists 5: expected 0 to 4"):
        retrieval_commands.index(run, str(labelled.root), tmp_path / "new", lists=5, device="cpu")
    assert not list(tmp_path.glob("*new*"))
    with pytest.raises(ConfigError, match="no index here"):
        Index(tmp_path)
