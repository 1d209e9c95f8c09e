"""Samples of a dataset's split with what is known of them, and the part of it that a crop shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.shards import Shard
from fourmill.tokenize.base import CropSettings
from fourmill.tokenize.boxes import clip_box
from fourmill.tokenize.crops import crop_dense, crop_known_depth, crop_settings
from fourmill.train.order import spread


@dataclass(frozen=True)
class Sample:
    """One sample of a dataset.

    Attributes:
        number: of it among all samples of the dataset: what draws are keyed by.
        image: its picture, uint8 `[height, width, 3]`.
        crop: its centre square.
        labels: by modality, `None` where it has none, or none that can be read.
    """

    number: int
    key: str
    image: UInt8[np.ndarray, "_height _width 3"]
    crop: CropSettings
    labels: Mapping[str, Label | None]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])


class Split:
    """Samples of one split, evenly spread over it where there is a limit.

    Args:
        names: modalities whose labels are read.
        limit: of samples; all by default.

    Raises:
        UnknownNameError: the dataset has no such split or modality.
        ConfigError: it has no pictures, or the split no samples.
    """

    def __init__(
        self, dataset: Dataset, split: str, names: Sequence[str], limit: int | None = None
    ) -> None:
        if "rgb" not in dataset.modalities:
            raise ConfigError(f"{dataset.url} has no rgb: there are no pictures to predict from")
        self._dataset = dataset
        self._names = sorted({"rgb", *names})
        self._opened: dict[int, dict[str, Shard]] = {}
        counts = np.array(dataset.shard_column("rgb", "samples"), np.int64)
        starts = np.cumsum(counts) - counts
        shards = np.array(list(dataset.shard_indices(split)), np.int64)
        ends = np.cumsum(counts[shards])
        if not ends.size or not ends[-1]:
            raise ConfigError(f"{dataset.url}: the split {split!r} holds no samples")
        chosen = np.array(spread(int(ends[-1]), limit), np.int64)
        place = np.searchsorted(ends, chosen, side="right")
        self._shards = shards[place]
        self._rows = chosen - (ends - counts[shards])[place]
        self._numbers = starts[self._shards] + self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample | None:
        """One of the samples, `None` for one whose picture cannot be read.

        Raises:
            ShardError: a file is broken.
        """
        shard, row = int(self._shards[index]), int(self._rows[index])
        opened = self._open(shard)
        labels: dict[str, Label | None] = {}
        for name, each in opened.items():
            try:
                labels[name] = each.label(row)
            except SampleError:  # recorded when it was made; here it is one that is missing
                labels[name] = None
        image = labels["rgb"]
        if not isinstance(image, np.ndarray):
            return None
        key = opened["rgb"].keys[row]
        crop = crop_settings(key, image.shape[0], image.shape[1], 1)
        return Sample(int(self._numbers[index]), key, image, crop, labels)

    def _open(self, shard: int) -> dict[str, Shard]:
        """One shard of every modality; the last one stays open, as its neighbours are next."""
        if shard not in self._opened:
            self._opened = {
                shard: {name: self._dataset.shard(name, shard) for name in self._names}
            }  # fmt: skip
        return self._opened[shard]


def cropped(definition: Modality, label: Label, sample: Sample, side: int) -> Label:
    """What the sample's centre square shows of a label.

    Depth of 0 is unknown, and is no part of the mean where depth is resampled. Boxes become
    relative to the crop, those outside are left out. What does not lie in the picture's plane stays
    as it is.

    Args:
        side: of the crop, in pixels or feature cells.
    """
    kind = definition.kind
    if kind is Kind.BOXES:
        assert isinstance(label, dict)
        return cropped_boxes(label, sample.crop[0], sample.image_size)
    if not kind.is_dense:
        return label
    assert isinstance(label, np.ndarray)
    crop_of = crop_known_depth if kind is Kind.DEPTH else partial(crop_dense, kind=kind)
    found: Label = crop_of(label, crops=sample.crop, image_size=sample.image_size, size=side)[0]
    return found


def cropped_boxes(
    label: Mapping[str, Any], crop: NDArray[np.int64], image_size: tuple[int, int]
) -> dict[str, Any]:
    """The boxes that a crop shows a part of, relative to it; those of crowds too."""
    found: dict[str, Any] = {"instances": []}
    for name in ("instances", "crowds"):
        for each in label.get(name, ()):
            box = clip_box(each["boxes"], crop, image_size)
            if box is not None:
                found.setdefault(name, []).append({**each, "boxes": list(box)})
    return found
