"""Sequences of vectors as inputs: `t5_caption`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.train.conftest import SHARDS, write_dataset
from tests.train.test_loader import NUM_TRAIN

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ShardError
from fourmill.manifests.labels import empty_label, encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer
from fourmill.train.config import TrainConfig
from fourmill.train.data import domains_of
from fourmill.train.loader import TokenLoader
from fourmill.train.loop import train

T5 = modality("t5_caption")
UNLABELLED = 3


def sequence(row: int) -> np.ndarray:
    """As many vectors as words, up to all that there is room for."""
    count = T5.max_tokens if row == 0 else 1 + row
    return np.random.default_rng(row).normal(size=(count, T5.channels)).astype(np.float16)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = write_dataset(tmp_path / "data")
    writer = dataset.writer(T5, Producer(name="test", version="1"), {}, SHARDS)
    for shard in range(SHARDS):
        rows = range(2 * shard, 2 * shard + 2)
        payloads = [
            empty_label(T5) if row == UNLABELLED else encode_label(T5, sequence(row))
            for row in rows
        ]
        valid = [row != UNLABELLED for row in rows]
        writer.commit(shard, dataset.shard("rgb", shard).keys, payloads=payloads, valid=valid)
    dataset.publish([writer.finish()], "vectors")
    return dataset


def test_vectors_are_inputs_only_where_they_are_named(dataset: Dataset) -> None:
    assert "t5_caption" not in domains_of(dataset.head, None, None, 8).names
    domains = domains_of(dataset.head, ["tok_caption", "t5_caption"], None, 8)
    assert domains.inputs == ("t5_caption", "tok_caption")
    assert "t5_caption" not in domains.targets


def test_each_sample_has_its_vectors(dataset: Dataset) -> None:
    domains = domains_of(dataset.head, ["t5_caption"], None, 8)
    batch = TokenLoader(dataset, dataset.head, domains, "train", NUM_TRAIN).batch(0)
    assert sorted(batch.sample.tolist()) == list(range(NUM_TRAIN))
    for slot, row in enumerate(batch.sample.tolist()):
        is_there = batch.tokens["t5_caption"][slot].bool().numpy()
        assert batch.valid["t5_caption"][slot] == (row != UNLABELLED)
        if row == UNLABELLED:
            assert not is_there.any()
        else:
            found = batch.vectors["t5_caption"][slot].numpy()
            np.testing.assert_array_equal(found[is_there], sequence(row))


def test_a_model_trains_on_vectors(
    dataset: Dataset, make_config: Callable[..., TrainConfig]
) -> None:
    config = make_config(root=dataset.url, inputs=["t5_caption", "tok_caption"], steps=3)
    assert train(config).step == 3


def test_a_sequence_longer_than_the_modality_is_named(dataset: Dataset) -> None:
    writer = dataset.writer(T5, Producer(name="long", version="1"), {}, SHARDS)
    long = np.zeros((T5.max_tokens + 1, T5.channels), np.float16)
    for shard in range(SHARDS):
        payloads = [encode_label(T5, long)] * 2
        writer.commit(shard, dataset.shard("rgb", shard).keys, payloads=payloads)
    dataset.publish([writer.finish()], "too long")
    domains = domains_of(dataset.head, ["t5_caption"], None, 8)
    loader = TokenLoader(dataset, dataset.head, domains, "val", 1)
    with pytest.raises(ShardError, match=r"shard-000003.tar: .*sample 0: "):
        loader.rows(np.array([0]))
