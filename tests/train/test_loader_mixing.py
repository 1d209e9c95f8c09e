"""Several datasets as one, and parts of one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.conftest import CAPTION, SHARDS, write_dataset
from tests.train.test_loader import NUM_TRAIN, loader_of

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.snapshots import Producer
from fourmill.train.config import TrainConfig
from fourmill.train.loop import train
from fourmill.train.mixing import BLOCK, MixedLoader
from fourmill.train.plan import plan_run
from fourmill.train.runs import read_run
from fourmill.train.sources import open_loaders

MakeConfig = Callable[..., TrainConfig]


def mixed(dataset: Dataset, weights: list[int]) -> MixedLoader:
    loaders = [
        loader_of(dataset, first_id=1000 * number, cache_bytes=0) for number in range(len(weights))
    ]
    return MixedLoader(loaders, [float(each) for each in weights], seed=3)


def test_each_dataset_has_its_share_and_runs_through_epochs_of_its_own(dataset: Dataset) -> None:
    loader = mixed(dataset, [3, 1])
    which, inner = loader._locate(np.arange(2 * BLOCK))
    for number, share in ((0, 0.75), (1, 0.25)):
        own = inner[which == number]
        assert len(own) == share * 2 * BLOCK
        np.testing.assert_array_equal(np.sort(own), np.arange(len(own)))
    early = np.bincount(which[:400])
    assert abs(early[0] - 300) < 60  # they take turns all the time


def test_any_share_of_a_step_is_read_as_in_the_whole_step(dataset: Dataset) -> None:
    loader = mixed(dataset, [1, 2])
    whole = loader.batch(5)
    assert len(set(torch.div(whole.sample, 1000, rounding_mode="floor").tolist())) == 2
    for rank in range(3):
        part = next(loader.read_ahead([np.arange(20, 24)[rank::3]]))
        assert torch.equal(part.sample, whole.sample[rank::3])
        assert torch.equal(part.pixels["rgb@32"], whole.pixels["rgb@32"][rank::3])
        for name, tokens in part.tokens.items():
            assert torch.equal(tokens, whole.tokens[name][rank::3])
            assert torch.equal(part.valid[name], whole.valid[name][rank::3])


def test_a_weight_that_would_never_be_drawn_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="less than 1 in 10000"):
        mixed(dataset, [10**6, 1])


def test_a_fraction_is_the_same_samples_whatever_the_seed(dataset: Dataset) -> None:
    def ids(fraction: float, seed: int) -> Counter[int]:
        loader = loader_of(dataset, fraction=fraction, seed=seed, cache_bytes=0)
        return Counter(loader.at(np.arange(2 * len(loader))).sample.tolist())

    half = ids(0.5, 1)
    assert half == ids(0.5, 2)
    assert set(half.values()) == {2}
    assert len(half) == NUM_TRAIN // 2
    assert set(ids(0.34, 1)) < set(half)


def test_a_run_on_two_datasets_pins_both_and_goes_on_with_them(
    dataset: Dataset, make_config: MakeConfig, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path / "other")
    config = make_config(
        datasets=[{"root": dataset.url, "weight": 2}, {"root": other.url}], steps=3
    )
    train(config)
    run = read_run(config.out)
    assert run is not None
    assert run.snapshots == (dataset.head.id, other.head.id)
    loader, _ = open_loaders(run, 1)
    samples = loader.at(np.arange(100)).sample
    assert sorted(set((samples // 2**40).tolist())) == [1, 2]
    recaption(other)
    with pytest.raises(ConfigError, match=r"other versions of tok_caption in datasets\.2"):
        train(config.model_copy(update={"steps": 3}))


def recaption(dataset: Dataset, definition: object = CAPTION) -> None:
    writer = dataset.writer(definition, Producer(name="other", version="2"), {}, SHARDS)  # type: ignore[arg-type]
    for shard in range(SHARDS):
        keys = dataset.shard("rgb", shard).keys
        writer.commit(shard, keys, array=np.zeros((len(keys), CAPTION.max_tokens), np.int16))
    dataset.publish([writer.finish()], "other captions")


def test_datasets_whose_tokens_mean_something_else_are_not_mixed(
    dataset: Dataset, make_config: MakeConfig, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path / "other")
    config = make_config(datasets=[{"root": dataset.url}, {"root": other.url}])
    recaption(other, replace(CAPTION, vocab_size=5000))
    with pytest.raises(ConfigError, match=r"tok_caption is not that of .*vocab_size is 5000, not"):
        plan_run(config)
    with pytest.raises(UnknownNameError, match="tok_nothing"):
        plan_run(make_config(targets=["tok_nothing"], datasets=[{"root": other.url}]))
