"""Training on marked samples alone."""

from collections import Counter
from collections.abc import Callable, Set
from pathlib import Path

import numpy as np
import pytest
from tests.train.conftest import PHOTOS, SHARDS, write_dataset
from tests.train.test_loader import loader_of

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.snapshots import Producer
from fourmill.train.config import TrainConfig
from fourmill.train.loop import train
from fourmill.train.plan import plan_run
from fourmill.train.runs import read_run
from fourmill.train.sources import open_loaders

SURE = Modality("mark_sure", Kind.STRUCTURE, "mark_sure", "json")
KEPT = {0, 1, 5}  # nothing of the second shard


def write_marks(dataset: Dataset, kept: Set[int]) -> None:
    producer = Producer(name="mark", version=str(sorted(kept)))
    writer = dataset.writer(SURE, producer, {}, SHARDS)
    each = len(PHOTOS) // SHARDS
    for shard in range(SHARDS):
        rows = range(shard * each, (shard + 1) * each)
        marks = [encode_label(SURE, {"keep": row in kept, "values": {}}) for row in rows]
        writer.commit(shard, [PHOTOS[row] for row in rows], payloads=marks)
    dataset.publish([writer.finish()], "mark")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = write_dataset(tmp_path_factory.mktemp("marked"))
    write_marks(made, KEPT)
    return made


@pytest.mark.parametrize("options", [{}, {"together": 1}, {"together": 2}])
def test_marked_samples_alone_come_each_once_an_epoch(marked: Dataset, options: object) -> None:
    loader = loader_of(marked, where="mark_sure", **options)  # type: ignore[arg-type]
    assert len(loader) == len(KEPT)
    batch = loader.at(np.arange(10 * len(KEPT)))
    assert Counter(batch.sample.tolist()) == dict.fromkeys(KEPT, 10)
    assert Counter(batch.visit.tolist()) == dict.fromkeys(range(10), len(KEPT))
    whole = loader_of(marked)
    for sample, tokens in zip(batch.sample.tolist(), batch.tokens["tok_caption"], strict=True):
        np.testing.assert_array_equal(
            tokens, whole.rows(np.array([sample])).tokens["tok_caption"][0]
        )
    assert loader.keys == [PHOTOS[row] for row in sorted(KEPT)]


def test_a_fraction_is_one_of_the_marked_samples(marked: Dataset) -> None:
    part = loader_of(marked, where="mark_sure", fraction=0.67)
    assert len(part) == 2
    found = set(part.at(np.arange(8)).sample.tolist())
    assert len(found) == 2
    assert found < KEPT


def test_a_run_trains_on_marked_samples_and_is_judged_by_all(
    marked: Dataset, make_config: Callable[..., TrainConfig]
) -> None:
    config = make_config(root=marked.url, where="mark_sure", steps=2, warmup=1)
    train(config)
    run = read_run(config.out)
    assert run is not None
    training, val = open_loaders(run, 1)
    assert set(training.at(np.arange(20)).sample.tolist()) == KEPT
    assert len(val) == len(PHOTOS) // SHARDS
    write_marks(marked, {0, 2})
    with pytest.raises(ConfigError, match="other versions of mark_sure"):
        train(config)


def test_marks_that_cannot_choose_are_told_before_the_first_step(
    dataset: Dataset, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="modality of marks"):
        plan_run(make_config(where="mark_sure"))
    with pytest.raises(ConfigError, match="crop_settings holds no marks"):
        loader_of(dataset, where="crop_settings")
    other = write_dataset(tmp_path / "other")
    write_marks(other, {7})
    with pytest.raises(ConfigError, match="mark_sure keeps no sample of the split 'train'"):
        loader_of(other, where="mark_sure")
