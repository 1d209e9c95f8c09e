"""Features of all pictures of a dataset, as arrays.

OUT/train.npy            float32 `[samples, D]`
OUT/train-keys.npy       their keys, in the same order
OUT/features.json        model, snapshot, pooling, size
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.train.devices import autocast, choose_device, choose_dtype
from fourmill.train.progress import OnProgress, Progress
from fourmill.train.published import Which
from fourmill.train.runs import replace_file
from fourmill.train.transfer.backbone import Backbone
from fourmill.train.transfer.data import Pictures, dense_places, evaluation_batches
from fourmill.train.transfer.network import Pooling, normalised, pooled

_ABOUT = "features.json"


@dataclass(frozen=True)
class Features:
    """Of the pictures of one split, in the dataset's order.

    Attributes:
        keys: of the samples; those whose picture cannot be read are left out.
    """

    values: Float32[np.ndarray, "samples dim"]
    keys: tuple[str, ...]

    def of(self, keys: Sequence[str]) -> tuple[Float32[np.ndarray, "found dim"], NDArray[np.bool_]]:
        """The features of some samples, and which of them have any."""
        places = {key: row for row, key in enumerate(self.keys)}
        rows = [places.get(key, -1) for key in keys]
        is_there = np.array(rows, np.int64) >= 0
        return self.values[[row for row in rows if row >= 0]], is_there


@dataclass(frozen=True)
class Extraction:
    """How features are made.

    Attributes:
        snapshot: id of the dataset's snapshot.
        size: of the centre crops, in pixels.
        others: token modalities beside the pixels.
        weights: of the model, or their average.
    """

    model: str
    snapshot: str
    size: int
    pooling: Pooling
    others: tuple[str, ...] = ()
    weights: Which = "model"


_EXTRACTION = TypeAdapter(Extraction)


def extract(
    backbone: Backbone,
    dataset: Dataset,
    split: str,
    pooling: Pooling = "mean",
    size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    readers: int = 0,
    on_progress: OnProgress | None = None,
) -> Features:
    """Features of the centre crops of a split.

    Args:
        size: of the crops; by default the model's.
        dtype: of activations; features are float32.

    Raises:
        UnknownNameError: no such split, or tokens that the dataset lacks.
        ConfigError: no picture, a size that patches do not fill, or registers of a model without.
    """
    dataset.shard_indices(split)  # which refuses a split that is not there
    chosen = choose_device(device)
    type_ = choose_dtype(dtype, chosen)
    places = dense_places(dataset, dataset.head.id, split, ["rgb"])
    pictures = Pictures(
        dataset.url, dataset.head.id, places, size or backbone.input_size,
        np.zeros(len(places), np.int64), others=backbone.others,
    )  # fmt: skip
    backbone = backbone.to(chosen).eval()
    values, rows = [], []
    done = 0
    with torch.no_grad():
        for batch in evaluation_batches(pictures, batch_size, (0, 1), readers):
            images = normalised(batch["image"].to(chosen))
            tokens = {name: each.to(chosen) for name, each in batch["tokens"].items()}
            with autocast(chosen, type_):
                features = backbone.forward_features(images, tokens)
                found = pooled(backbone, features, images, pooling)
            values.append(found.float().cpu().numpy())
            rows += batch["at"].tolist()
            done += len(images)
            if on_progress is not None:
                on_progress(Progress(done, len(places), 0.0))
    if not rows:
        raise ConfigError(f"{dataset.url}: no picture of {split} can be read; `fourmill verify`")
    read = places[rows]
    keys = {int(each): dataset.shard("rgb", int(each)).keys for each in np.unique(read[:, 0])}
    return Features(np.concatenate(values), tuple(keys[shard][row] for shard, row in read.tolist()))


def write_features(features: Mapping[str, Features], about: Extraction, out: Path) -> None:
    """Write the features of some splits; what says of what they are comes last, so that arrays of
    two extractions are never read as one."""
    out.mkdir(parents=True, exist_ok=True)
    (out / _ABOUT).unlink(missing_ok=True)
    for split, each in features.items():
        np.save(out / f"{split}.npy", each.values, allow_pickle=False)
        np.save(out / f"{split}-keys.npy", np.array(each.keys), allow_pickle=False)
    replace_file(out / _ABOUT, json.dumps(vars(about), indent=1).encode())


def read_extraction(out: Path) -> Extraction:
    """How the features of a folder were made.

    Raises:
        ConfigError: there are none, or they were not written to the end.
    """
    try:
        return _EXTRACTION.validate_json((out / _ABOUT).read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{out}: no whole features: {_ABOUT} cannot be read ({error}); run `fourmill features`"
        ) from error


def read_features(out: Path, split: str) -> Features:
    """What `write_features` wrote.

    Raises:
        ConfigError: it is not there, not written to the end, or not readable.
    """
    read_extraction(out)
    try:
        values, keys = (
            np.load(out / f"{name}.npy", allow_pickle=False) for name in (split, f"{split}-keys")
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{out}: features of {split} cannot be read: {error}") from error
    if values.dtype != np.float32 or values.ndim != 2 or len(values) != len(keys):
        raise ConfigError(
            f"{out}: found {values.dtype} {values.shape} for {len(keys)} keys of {split}, expected "
            f"float32 with a row for each"
        )
    return Features(values, tuple(str(each) for each in keys))
