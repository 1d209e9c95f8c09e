"""Two experts compared over a whole dataset, and samples marked by what their labels say."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from fourmill.manifests.agreement import compare
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import empty_label, encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline import over_shards
from fourmill.pipeline.cli import main
from fourmill.pipeline.comparing import compare_versions
from fourmill.pipeline.conditions import parse_condition
from fourmill.pipeline.marking import mark

SHARDS, SAMPLES = 3, 8
KEYS = [[f"sample-{shard}-{row}" for row in range(SAMPLES)] for shard in range(SHARDS)]
SURE = [[(shard * SAMPLES + row) / 24 for row in range(SAMPLES)] for shard in range(SHARDS)]


def _write(dataset: Dataset, name: str, labels, producer: str = "one"):
    definition = modality(name)
    sources = {} if dataset.is_empty else {"rgb": dataset.modalities["rgb"]}
    writer = dataset.writer(definition, Producer(name=producer, version="1"), sources, SHARDS)
    for shard, keys in enumerate(KEYS):
        row = [empty_label(definition) if e is None else encode_label(definition, e)
               for e in labels[shard]]  # fmt: skip
        writer.commit(shard, keys, payloads=row, valid=[e is not None for e in labels[shard]])
    return writer.finish()


def _all(make: Callable[[np.random.Generator], object], seed: int):
    rng = np.random.default_rng(seed)
    return [[make(rng) for _ in range(SAMPLES)] for _ in range(SHARDS)]


def _boxes(score: float) -> dict:
    return {"instances": [{"boxes": [0, 0, 1, 1], "class_name": "cup", "score": score}]}


@pytest.fixture
def depths():
    """Depth by two experts, by shard and row; the second lacks one label."""
    first = _all(lambda rng: rng.uniform(0.1, 0.9, (20, 30)).astype(np.float32), 0)
    rng = np.random.default_rng(1)
    second = [
        [(d + rng.normal(0, 0.3 * rng.random(), d.shape)).clip(0, 1).astype(np.float32) for d in s]
        for s in first
    ]
    second[1][2] = None
    return first, second


@pytest.fixture
def dataset(tmp_path, depths) -> Dataset:
    dataset = Dataset.open(str(tmp_path / "dataset"), create=True)
    pictures = _all(lambda rng: rng.integers(0, 256, (40, 60, 3)).astype(np.uint8), 5)
    captions = [["a cat" if row % 2 else "a cat on a mat" for row in range(SAMPLES)]] * SHARDS
    metadata = [[{"brightness": each * 240} for each in shard] for shard in SURE]
    dataset.publish([_write(dataset, "rgb", pictures)], "ingest")
    others = [
        _write(dataset, "caption", captions),
        _write(dataset, "det", [[_boxes(each) for each in shard] for shard in SURE]),
        _write(dataset, "metadata", metadata),
        _write(dataset, "depth", depths[0]),
    ]
    dataset.publish(others, "label")
    dataset.put_aside("newer", [_write(dataset, "depth", depths[1], "other")], "label")
    return dataset


def test_two_versions_are_compared_sample_by_sample(dataset, depths):
    found = compare_versions(dataset, dataset.head, dataset.snapshot("newer"), "depth", most=4)
    stored = [list(each.samples(["depth"])) for each in (dataset, dataset.at("newer"))]
    depth = modality("depth")
    measures = {
        one["key"]: compare(depth, one["depth"], depth, other["depth"]).measures
        for one, other in zip(*stored, strict=True)
        if other["depth"] is not None
    }
    assert (found.both, found.only_before, found.only_after, found.neither) == (23, 1, 0, 0)
    for name, value in found.means.items():
        assert value == pytest.approx(np.mean([each[name] for each in measures.values()]))
    order = sorted(measures, key=lambda key: measures[key]["rank_correlation"])
    assert [each.key for each in found.worst] == order[:4]
    assert found.worst[0].measures == measures[order[0]]
    assert [found.before.producer.name, found.after.producer.name] == ["one", "other"]


@pytest.mark.ray
def test_a_comparison_is_the_same_on_many_workers(dataset, cluster, monkeypatch):
    snapshots = dataset.head, dataset.snapshot("newer")
    here = compare_versions(dataset, *snapshots, "depth")
    monkeypatch.setattr(over_shards, "_FEW", 0)
    assert compare_versions(dataset, *snapshots, "depth") == here


def test_a_part_of_the_samples_is_spread_evenly(dataset):
    newer = dataset.snapshot("newer")
    found = compare_versions(dataset, dataset.head, newer, "depth", samples=6, most=6)
    assert found.both + found.only_before == 6
    assert {each.shard for each in found.worst} == {0, 1, 2}


def test_a_difference_is_told_to_people_and_programs_and_drawn(dataset, tmp_path, capsys):
    png = tmp_path / "panel.png"
    words = ["diff", dataset.url, "HEAD", "newer", "--png", str(png)]
    assert main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["modality"] == "depth"
    assert found["samples"]["only_before"] == 1
    assert set(found["means"]) == {"rank_correlation", "abs_rel", "delta1"}
    with Image.open(png) as image:
        # four columns (picture, both, difference) and six rows of 168 pixels
        assert image.width > 4 * 168
        assert image.height > 6 * 168
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "changed  depth producer one 1 -> other 1" in shown
    assert "samples with both labels: 23; 1 only before" in shown
    assert found["worst"][0]["key"] in shown
    assert main(["diff", dataset.url, "HEAD", "newer", "--modality", "dpeth"]) == 2
    assert "did you mean 'depth'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("score(det) >= 0.5", lambda shard, row: SURE[shard][row] >= 0.5),
        ("count(caption) > 2", lambda shard, row: row % 2 == 0),
        ("count(det) < 1", lambda shard, row: False),
        ("metadata.brightness <= 120", lambda shard, row: SURE[shard][row] <= 0.5),
    ],
)
def test_samples_are_marked_by_what_their_labels_say(dataset, where, expected):
    marked = mark(dataset, "good", [parse_condition(where)])
    keep = [key for s, keys in enumerate(KEYS) for r, key in enumerate(keys) if expected(s, r)]
    chosen = [each["key"] for each in dataset.samples(["caption"], where="mark_good")]
    assert chosen == keep
    assert (marked.modality, marked.samples, marked.keep) == ("mark_good", 24, len(keep))
    assert dataset.verify(deep=True) == []


def test_samples_are_marked_by_the_agreement_of_two_experts(dataset):
    mark(dataset, "agreed", [parse_condition("agreement(depth, depth:newer) >= 0.9")])
    found = compare_versions(dataset, dataset.head, dataset.snapshot("newer"), "depth", most=24)
    agreed = {e.key for e in found.worst if e.measures["rank_correlation"] >= 0.9}
    assert 0 < len(agreed) < 23
    kept = {each["key"] for each in dataset.samples(["rgb"], where="mark_agreed")}
    assert kept == agreed  # the sample that lacks one label is not kept
    first = next(dataset.samples(["mark_agreed"]))["mark_agreed"]
    assert set(first) == {"keep", "values"}
    assert list(first["values"]) == ["agreement(depth, depth:newer)"]


def test_marks_are_made_once_and_are_stale_when_their_labels_are_replaced(dataset, depths, capsys):
    words = ["mark", dataset.url, "sure", "--where", "score(det) >= 0.2", "count(depth) > 1"]
    assert main(words) == 0
    assert "mark_sure: 19 of 24 samples are to keep (79%)" in capsys.readouterr().out
    head = Dataset.open(dataset.url).head
    assert main(words) == 0
    assert Dataset.open(dataset.url).head.id == head.id
    again = Dataset.open(dataset.url)
    again.switch("newer")
    states = {each.modality: each.state for each in again.status().modalities}
    assert states["mark_sure"] == "stale: depth changed"
    assert main(words) == 0
    assert {each.state for each in Dataset.open(dataset.url).status().modalities} == {"current"}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("score(det)", "expected a measure and a bound"),
        ("__import__('os').x > 1", "expected a measure and a bound"),
        ("scor(det) > 1", "did you mean 'score'"),
        ("score(det) > high", "'high' is no number"),
        ("agreement(depth) > 1", "agreement is of 2 modalities"),
    ],
)
def test_a_condition_that_says_nothing_is_refused_with_an_example(where, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        parse_condition(where)


def test_marks_and_modalities_that_are_not_there_are_named(dataset):
    with pytest.raises(UnknownNameError, match="did you mean 'det'"):
        mark(dataset, "good", [parse_condition("score(dte) > 0")])
    with pytest.raises(ConfigError, match="cannot name a mark"):
        mark(dataset, "no/name", [parse_condition("score(det) > 0")])
    with pytest.raises(ConfigError, match="caption holds no marks"):
        next(dataset.samples(["rgb"], where="caption"))
    with pytest.raises(ConfigError, match="only labels of one kind can be compared"):
        mark(dataset, "good", [parse_condition("agreement(depth, caption) > 0")])


def test_cleaning_asks_first_and_where_nobody_can_be_asked_wants_to_be_told(
    dataset, capsys, monkeypatch
):
    dataset.switch("newer")
    words = ["gc", dataset.url, "--keep", "1"]
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "pass --yes to do it, or --dry-run" in shown.err
    assert "depth: " in shown.out
    assert len(Dataset.open(dataset.url).log()) == 3
    monkeypatch.setattr("sys.stdin", _Terminal("no"))
    assert main(words) == 0
    assert "would free" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", _Terminal("y"))
    assert main(words) == 0
    assert "freed" in capsys.readouterr().out
    assert len(Dataset.open(dataset.url).log()) == 1
    assert main([*words, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


class _Terminal:
    """Somebody at a terminal who answers."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self.answer}\n"
