"""The loaders of a run."""

from functools import lru_cache

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.packages import cache_folder
from fourmill.train.cache import ShardCache
from fourmill.train.loader import Loader, TokenLoader
from fourmill.train.mixing import MixedLoader
from fourmill.train.runs import Run

_IDS = 2**40  # of samples of one dataset


def open_loaders(run: Run, threads: int) -> tuple[Loader, TokenLoader]:
    """What a run trains on, and what it is evaluated on.

    Args:
        threads: that decode pixels.

    Raises:
        ConfigError: a split that is missing or empty, or a weight that is too small.
        DatasetError: a dataset is gone, or its tables are broken.
    """
    config = run.config
    cache = ShardCache(config.cache or cache_folder() / "shards", int(config.cache_gib * 2**30))

    dataset_of = lru_cache(Dataset.open)  # tables are read once

    def loader(root: str, snapshot: str, split: str, number: int = 0) -> TokenLoader:
        dataset = dataset_of(root)
        is_train = split == "train"
        return TokenLoader(
            dataset, dataset.snapshot(snapshot), run.domains, split, config.batch_size,
            config.seed, config.pixel_cache_mib * 2**20 // max(1, len(config.datasets)), threads,
            cache, config.fraction if is_train else 1.0, number * _IDS,
            config.shuffle_shards if is_train else None, config.where if is_train else None,
        )  # fmt: skip

    val = loader(config.root, run.snapshot, "val")
    if not config.datasets:
        return loader(config.root, run.snapshot, "train"), val
    loaders = [
        loader(source.root, snapshot, "train", number)
        for number, (source, snapshot) in enumerate(
            zip(config.datasets, run.snapshots, strict=True), 1
        )
    ]
    return MixedLoader(loaders, [each.weight for each in config.datasets], config.seed), val
