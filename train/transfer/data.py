"""Pictures with their labels as batches of crops, in an order that depends on the seed alone.

Sample number n of the whole training, counted from 0, is the same picture, the same crop and the
same colours whatever the batch size, the processes and the restarts.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError, TrainingError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import Kind, Masking, Modality
from fourmill.manifests.resampling import picked
from fourmill.manifests.shards import Shard
from fourmill.tokenize.crops import crop_dense, crop_known_depth, crop_settings
from fourmill.train.transfer.config import AugmentConfig
from fourmill.train.transfer.draws import drawing_from, seed_of

_log = logging.getLogger(__name__)

Batch = dict[str, Any]
"""`image` uint8 `[B, 3, S, S]`, `target`, `at` (place among the samples), and `tokens` by name."""

_REPLACEMENTS = 100  # pictures in a row that may be unreadable
_VALID = 127  # of a mask: above it labels count
_UNKNOWN: dict[Kind, int] = {Kind.CLASSES: 255, Kind.DEPTH: 0, Kind.NORMAL: 128}
_OPEN_SHARDS = 64


class Pictures(TorchDataset[Batch | None]):
    """Crops of pictures, with what is to be learned of each.

    It opens files when it is first asked, in whichever process that is.

    Args:
        places: shard and row of each sample.
        classes: of each sample; or
        label: the dense modality that is the target.
        mask: modality that says where dense labels are valid.
        others: token modalities; the crops are then those that the dataset's tokens are of.
        augment: of a training; without, samples are centre crops in the dataset's order, and what
            cannot be read is `None`.
    """

    def __init__(
        self,
        root: str,
        snapshot: str,
        places: Int64[np.ndarray, "samples 2"],
        size: int,
        classes: Int64[np.ndarray, " samples"] | None = None,
        label: Modality | None = None,
        mask: str | None = None,
        others: Sequence[str] = (),
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._root, self._snapshot = root, snapshot
        self._places, self._classes = places, classes
        self._label, self._mask, self._others = label, mask, tuple(others)
        self._size, self._augment, self._seed = size, augment, seed
        self._refused: set[int] = set()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Batch | None:
        """A sample by its number in the training, or by its place."""
        if self._augment is None:
            try:
                return self._sample(number, number)
            except SampleError as error:
                self._refuse(number, error)
                return None
        epoch, position = divmod(number, len(self._places))
        for step in range(_REPLACEMENTS):
            at = int(self._opened.order(epoch)[(position + step) % len(self._places)])
            if at in self._refused:
                continue
            try:
                return self._sample(at, number)
            except SampleError as error:
                self._refused.add(at)
                self._refuse(at, error)
        raise TrainingError(
            f"{self._root}: {_REPLACEMENTS} pictures in a row cannot be used; the log says why, "
            f"`fourmill verify` looks at all"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_opened"}

    def _sample(self, at: int, number: int) -> Batch:
        shard, row = (int(each) for each in self._places[at])
        image = self._opened.shard("rgb", shard).label(row)
        if not isinstance(image, np.ndarray):
            raise SampleError("rgb", "found no picture")
        height, width = image.shape[:2]
        crop, tokens = self._crop(shard, row, (height, width), number)
        pixels: NDArray[np.uint8]
        (pixels,) = crop_dense(image, Kind.IMAGE, crop, (height, width), self._size)
        sample: Batch = {
            "image": self._coloured(np.ascontiguousarray(pixels), number),
            "target": self._target(at, shard, row, crop, (height, width)),
            "at": at,
        }
        return sample | ({"tokens": tokens} if tokens else {})

    def _crop(
        self, shard: int, row: int, image_size: tuple[int, int], number: int
    ) -> tuple[Int64[np.ndarray, "1 5"], dict[str, Tensor]]:
        rng = np.random.default_rng([self._seed, number])
        if self._others:
            stored = self._opened.shard("crop_settings", shard).array()[row]
            chosen = 0 if self._augment is None else int(rng.integers(len(stored)))
            tokens = {name: self._tokens(name, shard, row, chosen) for name in self._others}
            return np.array(stored[chosen : chosen + 1], np.int64), tokens
        if self._augment is None:
            return crop_settings("", *image_size, 1), {}
        # the first row is always the centre, so the second is taken; the number says which picture
        # it is, and keys would have to be read from all of a shard's file
        crop = crop_settings("", *image_size, 2, seed_of(self._seed, number),
                             self._augment.min_scale)[1:]  # fmt: skip
        if not self._augment.flip:
            crop[:, 4] = 0
        return crop, {}

    def _tokens(self, name: str, shard: int, row: int, crop: int) -> Int64[Tensor, " length"]:
        opened = self._opened.shard(name, shard)
        values = np.array(opened.array()[row], np.int64)
        ids = values if values.ndim == 1 else values[crop]
        if not opened.record.valid[row]:
            is_grid = opened.entry.definition.masking is Masking.IMAGE
            ids = np.full_like(ids, -1 if is_grid else 0)
        return torch.from_numpy(ids)

    def _coloured(self, pixels: UInt8[np.ndarray, "S S 3"], number: int) -> UInt8[Tensor, "3 S S"]:
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        if self._opened.colours is None:
            return image
        with drawing_from(seed_of(self._seed, number, 1)):
            coloured: Tensor = self._opened.colours(image)
        return coloured

    def _target(
        self, at: int, shard: int, row: int, crop: NDArray[np.int64], image_size: tuple[int, int]
    ) -> Tensor:
        if self._classes is not None:
            return torch.tensor(self._classes[at])
        assert self._label is not None, "classes or a dense label"
        label = self._opened.shard(self._label.name, shard).label(row)
        check_label(self._label, label)
        assert isinstance(label, np.ndarray)
        kind = self._label.kind
        if self._mask is not None:
            mask = self._opened.shard(self._mask, shard).label(row)
            if not isinstance(mask, np.ndarray) or mask.ndim != 2:
                raise SampleError(self._mask, "found no mask, expected [H, W]")
            # before it is resampled: what is hidden has no say in what is beside it
            label = np.array(label)
            label[picked(mask, *label.shape[:2]) <= _VALID] = _UNKNOWN[kind]
        crop_of = crop_known_depth if kind is Kind.DEPTH else partial(crop_dense, kind=kind)
        (target,) = crop_of(label, crops=crop, image_size=image_size, size=self._size)
        return torch.from_numpy(np.ascontiguousarray(target))

    def _refuse(self, at: int, error: SampleError) -> None:
        shard, row = (int(each) for each in self._places[at])
        key = self._opened.shard("rgb", shard).keys[row]
        _log.warning("%s: sample %s is left out: %s", self._root, key, error)

    @cached_property
    def _opened(self) -> "_Opened":
        return _Opened(self._root, self._snapshot, len(self._places), self._seed, self._augment)


class _Opened:
    """What belongs to one process: open files, and what is drawn once an epoch."""

    def __init__(
        self, root: str, snapshot: str, count: int, seed: int, augment: AugmentConfig | None
    ) -> None:
        dataset = Dataset.open(root)
        at = dataset.snapshot(snapshot)

        def opened(modality: str, shard: int) -> Shard:
            return dataset.shard(modality, shard, at)

        def order(epoch: int) -> NDArray[np.int64]:
            return np.random.default_rng([seed, epoch]).permutation(count)

        self.shard = lru_cache(maxsize=_OPEN_SHARDS)(opened)
        self.order = lru_cache(maxsize=2)(order)
        self.colours = _colours(augment) if augment is not None else None


def _colours(augment: AugmentConfig) -> v2.Transform | None:
    """What torchvision does to a crop of uint8 `[3, S, S]`."""
    steps: list[Any] = []
    if augment.policy != "none":
        steps.append(v2.RandAugment() if augment.policy == "rand" else v2.TrivialAugmentWide())
    if augment.jitter:
        steps.append(v2.ColorJitter(*(augment.jitter,) * 3))
    if augment.erasing:
        steps.append(v2.RandomErasing(augment.erasing))
    return v2.Compose(steps) if steps else None


def training_batches(
    pictures: Pictures, steps: range, batch_size: int, share: tuple[int, int], readers: int
) -> Iterator[Batch]:
    """The batches of some steps.

    Args:
        share: (rank, number) of this process; each gets its part of every batch.

    Raises:
        ConfigError: a batch that cannot be shared evenly.
    """
    rank, processes = share
    if batch_size % processes:
        raise ConfigError(f"batch_size {batch_size} is not a multiple of the {processes} processes")
    numbers = [
        range(step * batch_size + rank, (step + 1) * batch_size, processes) for step in steps
    ]
    return iter(_loader(pictures, numbers, readers))


def evaluation_batches(
    pictures: Pictures, batch_size: int, share: tuple[int, int], readers: int
) -> Iterator[Batch]:
    """The samples of this process, in order; what cannot be read is left out."""
    own = range(share[0], len(pictures), share[1])
    numbers = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
    return (each for each in _loader(pictures, numbers, readers) if each is not None)


def _loader(
    pictures: Pictures, numbers: Sequence[Sequence[int]], readers: int
) -> "DataLoader[Batch | None]":
    return DataLoader(
        pictures, batch_sampler=numbers, num_workers=readers, collate_fn=_collate,  # type: ignore[arg-type]
        multiprocessing_context="forkserver" if readers else None,
    )  # fmt: skip


def _collate(samples: Sequence[Batch | None]) -> Batch | None:
    there = [each for each in samples if each is not None]
    if not there:
        return None
    batch: Batch = {
        name: torch.stack([each[name] for each in there]) for name in ("image", "target")
    }
    batch["at"] = torch.tensor([each["at"] for each in there])
    names: Mapping[str, Any] = there[0].get("tokens", {})
    batch["tokens"] = {
        name: torch.stack([each["tokens"][name] for each in there]) for name in names
    }
    return batch


def dense_places(
    dataset: Dataset, snapshot: str, split: str, names: Sequence[str]
) -> Int64[np.ndarray, "samples 2"]:
    """Shard and row of the samples that have a valid label of each of some modalities.

    Raises:
        UnknownNameError: no such modality or split.
        ConfigError: there is none.
    """
    at = dataset.snapshot(snapshot)
    places = []
    for start, stop in at.splits.get(split, ()):
        for index in range(start, stop):
            valid = np.logical_and.reduce(
                [dataset.shard(name, index, at).record.valid for name in names]
            )
            rows = np.flatnonzero(valid)
            places.append(np.stack([np.full_like(rows, index), rows], axis=1))
    found = np.concatenate(places) if places else np.zeros((0, 2), np.int64)
    if not len(found):
        raise ConfigError(
            f"{dataset.url}: split {split} has no sample with {' and '.join(names)}; "
            f"`fourmill status` says what there is"
        )
    return found
