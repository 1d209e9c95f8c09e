"""Training examples for the heads: frozen features beside truth, cached shard by shard.

A shard of a view is a folder of plain arrays, made aside and moved into place, so that an
interrupted run goes on where it was. Features are read through memory maps.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.labelers.backbones.vit_s_focus import ViTSFocus
from fourmill.labelers.training.views import View, make_view
from fourmill.manifests.dataset import Dataset

TRUTH = ("truth_depth", "truth_normal", "truth_semseg_coarse")
ARRAYS = ("features", "pixels", "depth", "normals", "classes")

_LAYOUT = 1  # raised when the same samples would give other examples

Examples = dict[str, NDArray[Any]]
"""By the names of `ARRAYS`, with samples along the first axis: features float16
`[N, 1536, 16, 16]`, the rest as in `View`, depth as float16."""

OnProgress = Callable[[int, int], None]
"""Called with how many of how many shards are there."""


def cached_examples(
    root: str, split: str, varied: float, cache: Path, on_progress: OnProgress = lambda *_: None
) -> list[Examples]:
    """One entry a shard and view, read lazily; what the cache lacks is made first.

    Args:
        varied: of the shards, this share comes again as other crops in other colours; 2.5 means
            two such views of all shards, and a third one of half of them.

    Raises:
        UnknownNameError: the dataset has no such split.
        DatasetError: there is no dataset, or it has no `rgb`.
    """
    dataset = Dataset.open(root)
    shards = dataset.shard_indices(split)
    wanted = [(shard, 0) for shard in shards]
    wanted += [
        (shards[number % len(shards)], 1 + number // len(shards))
        for number in range(round(varied * len(shards)))
    ]
    network: list[ViTSFocus] = []
    folders = []
    for number, (shard, view) in enumerate(wanted):
        on_progress(number, len(wanted))
        folder = cache / f"{dataset.head.id[:16]}-{_LAYOUT}" / f"shard-{shard:06d}-{view}"
        if not folder.exists():
            if not network:
                network.append(ViTSFocus("cpu"))
            _write(_shard_views(dataset, shard, view), network[0], folder)
        folders.append(folder)
    on_progress(len(wanted), len(wanted))
    return [_read(folder) for folder in folders]


def _shard_views(dataset: Dataset, shard: int, view: int) -> Iterator[View]:
    there = [name for name in TRUTH if name in dataset.modalities]
    for sample in dataset.samples(["rgb", *there], shards=[shard]):
        if sample["rgb"] is not None:
            yield make_view(sample, view)


def _write(views: Iterator[View], network: ViTSFocus, folder: Path) -> None:
    rows: dict[str, list[Any]] = {name: [] for name in ARRAYS}
    for view in views:
        rows["features"].append(network.layers(view.image))
        rows["pixels"].append(view.pixels)
        rows["depth"].append(view.depth.astype(np.float16))
        rows["normals"].append(view.normals)
        rows["classes"].append(view.classes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".make-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        for name, each in rows.items():
            np.save(made / f"{name}.npy", np.stack(each), allow_pickle=False)
        os.rename(made, folder)


def _read(folder: Path) -> Examples:
    return {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS
    }
