"""A broken expert is told from a good one by the statistics of its labels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import empty_label, encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.quality import Quality
from fourmill.manifests.snapshots import Producer
from fourmill.manifests.summaries import summarise
from fourmill.manifests.tables import Failure

SHARDS, SAMPLES = 6, 20
Make = Callable[[int, np.random.Generator], Any]


@pytest.fixture
def judge(tmp_path):
    """A function that stores a modality's labels (`None` for a failure) and judges them."""

    def judge(name: str, make: Make, refused: Sequence[Any] = ()) -> Quality:
        dataset = Dataset.open(str(tmp_path / "dataset"), create=True)
        definition = modality(name)
        sources = {"rgb": dataset.modalities["rgb"]} if not dataset.is_empty else {}
        writer = dataset.writer(definition, Producer(name="expert", version="1"), sources, SHARDS)
        for shard in range(SHARDS):
            rng = np.random.default_rng(shard)
            labels = [make(shard, rng) for _ in range(SAMPLES)]
            keys = [f"sample-{shard}-{row}" for row in range(SAMPLES)]
            good = [each for each in labels if each is not None]
            writer.commit(
                shard,
                keys,
                payloads=[
                    empty_label(definition) if e is None else encode_label(definition, e)
                    for e in labels
                ],
                valid=[each is not None for each in labels],
                failures=[
                    Failure(key, name, "SampleError", "no")
                    for key, each in zip(keys, labels, strict=True)
                    if each is None
                ],
                statistics=summarise(definition, good, refused),
                seconds=2.0,
            )
        dataset.publish([writer.finish()], "label")
        found = {each.entry.modality: each for each in dataset.quality()}
        return found[name]

    judge("rgb", lambda shard, rng: rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    return judge


def _depth(shard: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random((12, 12)).astype(np.float32) ** rng.uniform(0.5, 2)


def _boxes(shard: int, rng: np.random.Generator, classes=("cat", "dog", "cup"), most=5) -> dict:
    return {
        "instances": [
            {"boxes": [0, 0, 1, 1], "class_name": str(rng.choice(classes)), "score": rng.random()}
            for _ in range(rng.integers(0, most))
        ]
    }


GOOD: dict[str, Make] = {
    "depth": _depth,
    "det": _boxes,
    "normal": lambda shard, rng: rng.integers(60, 196, (6, 6, 3)).astype(np.uint8),
    "canny_edge": lambda shard, rng: (rng.random((30, 30)) > 0.9).astype(np.uint8) * 255,
    "semseg_coarse": lambda shard, rng: rng.integers(0, 21, (9, 9)).astype(np.uint8),
    "caption": lambda shard, rng: " ".join(rng.choice(["a", "cat", "dog"], rng.integers(3, 9))),
    "vit_s_focus": lambda shard, rng: rng.normal(size=(384, 2, 2)).astype(np.float16),
}


@pytest.mark.parametrize("name", GOOD)
def test_of_good_labels_nothing_odd_is_said(judge, name):
    found = judge(name, GOOD[name])
    assert found.findings == []
    assert found.statistics["labels"] == SHARDS * SAMPLES
    assert found.seconds_per_sample == pytest.approx(2 / SAMPLES)


BROKEN: dict[str, tuple[str, Make, str]] = {
    "all the same": (
        "depth", lambda *_: np.full((4, 4), 0.3, np.float32), "120 labels are the same",
    ),
    "one value each": (
        "depth", lambda s, rng: np.full((4, 4), rng.random(), np.float32),
        "120 of 120 labels are one value throughout",
    ),
    "hardly any range": (
        "depth", lambda s, rng: (0.001 * rng.random((9, 9))).astype(np.float32),
        "nearly all values",
    ),
    "one class": (
        "semseg_coarse", lambda s, rng: np.full(rng.integers(3, 6, 2), 7, np.uint8),
        "only one class: table",
    ),
    "no boxes": ("det", lambda *_: {"instances": []}, "120 of 120 labels have no boxes"),
    "one kind of box": (
        "det", lambda s, rng: _boxes(s, rng, ["cat"]), "only one class: cat",
    ),
    "no words": ("caption", lambda *_: "", "120 of 120 labels have no words"),
    "many failures": (
        "caption", lambda s, rng: None if rng.random() < 0.5 else f"cat {rng.random()}",
        "samples failed",
    ),
    "nothing": ("caption", lambda *_: None, "none of 120 samples has a label"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "what"), BROKEN.values(), ids=list(BROKEN))
def test_what_is_plainly_broken_is_said_once_for_all_shards(judge, name, make, what):
    found = judge(name, make)
    assert [each for each in found.findings if what in each.what], found.findings
    assert {each.shard for each in found.findings} == {None}
    assert {each.modality for each in found.findings} == {name}
    look = found.findings[0].look
    assert look.startswith("fourmill status" if found.failed > 0.2 else "fourmill view")


def test_values_that_are_not_finite_are_told(judge):
    found = judge("depth", _depth, [np.full((12, 12), np.nan, np.float32)])
    (finding,) = found.findings
    assert "4.8% of the values are not finite" in finding.what  # one of 21 labels
    assert finding.look.endswith("--failed")


@pytest.mark.parametrize(
    ("name", "make", "what"),
    [
        ("depth", lambda s, rng: _depth(s, rng) * (0.1 if s == 4 else 1), "its values differ"),
        ("det", lambda s, rng: _boxes(s, rng, ["tv"] if s == 4 else ["cat", "cup"]), "class: tv"),
        ("det", lambda s, rng: _boxes(s, rng, most=60 if s == 4 else 4), "its numbers of entries"),
        ("det", lambda s, rng: _boxes(s, rng, most=1 if s == 4 else 4), "have no boxes"),
    ],
)
def test_a_shard_that_differs_from_all_others_is_named(judge, name, make, what):
    findings = judge(name, make).findings
    assert {each.shard for each in findings} == {4}
    assert any(what in each.what for each in findings), findings
    assert "--shards 4" in findings[0].look


def test_a_code_book_that_has_collapsed_is_told(tmp_path):
    dataset = Dataset.open(str(tmp_path / "dataset"), create=True)
    definition = modality("tok_depth@224")  # of 8,192 ids
    rng = np.random.default_rng(0)
    for name, used in (("collapsed", 64), ("good", 8192)):
        writer = dataset.writer(definition, Producer(name=name, version="1"), {}, 1)
        tokens = rng.integers(0, used, (60, 8, 196)).astype(np.int16)
        keys = [f"sample-{row}" for row in range(60)]
        statistics = summarise(definition, list(tokens))
        writer.commit(0, keys, array=tokens, statistics=statistics)
        dataset.publish([writer.finish()], name)
        (found,) = dataset.quality()
        expected = ["the tokenizer has collapsed"] if name == "collapsed" else []
        assert [each.what.split(": ")[1] for each in found.findings] == expected


def test_statistics_that_another_program_wrote_say_nothing(tmp_path):
    dataset = Dataset.open(str(tmp_path / "dataset"), create=True)
    writer = dataset.writer(modality("caption"), Producer(name="theirs", version="1"), {}, 1)
    writer.commit(0, ["a", "b"], payloads=[b"x", b"y"], statistics={"distinct": 2, "loss": "low"})
    dataset.publish([writer.finish()], "theirs")
    (found,) = dataset.quality()
    assert (found.statistics, found.findings) == ({}, [])
