"""Labels of a dataset as batches of crops, in an order that depends on the seed alone.

Sample number n of the whole training, counted from 0, is the same label and the same crop whatever
the batch size, the processes and the restarts: so runs resume exactly, at another number of
processes too. Of a label that holds several parts (`PARTS`) some are drawn, one after another, for
it takes long to read.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError, TrainingError
from fourmill.manifests.labels import Label, check_label, image_size
from fourmill.manifests.modalities import PARTS, Kind, Modality, modality
from fourmill.manifests.shards import Shard
from fourmill.manifests.snapshots import Snapshot
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.tokenize.masks import fit_mask
from fourmill.tokenize.parts import Part, parts_of
from fourmill.tokenize.values import cut, to_tensor

_log = logging.getLogger(__name__)

_AHEAD = 3  # batches that are made while one is used
_REPLACEMENTS = 100  # samples in a row that may be unreadable
_VALID = 127  # of a mask: above it labels count
_OPEN_SHARDS = 64
_DRAWN = 8  # parts of a label in an epoch
_READ = 256  # labels whose parts are kept


@dataclass(frozen=True)
class Batch:
    """Crops as the network sees them.

    Attributes:
        inputs: `[B, C, S, S]` values, `[B, S, S]` class ids, or `[B, C]` vectors.
        valid: bool `[B, S, S]`, where labels count; `None` everywhere.
    """

    inputs: Tensor
    valid: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        valid = None if self.valid is None else self.valid.to(device, non_blocking=True)
        return Batch(self.inputs.to(device, non_blocking=True), valid)


class _Nothing(SampleError):
    """A label without a single part, which is nothing to complain of."""


class LabelLoader:
    """The valid labels of one modality, shuffled.

    Args:
        definition: of the modality; one of `PARTS` is taken out of what the dataset stores.
        side: of what the network sees, in pixels or feature cells.
        mask: modality that says where labels are valid.
        share: (rank, number) of this process; each gets its part of every batch.

    Raises:
        ConfigError: no valid label in the split, or a batch that cannot be shared evenly.
    """

    def __init__(
        self,
        dataset: Dataset,
        snapshot: Snapshot,
        definition: Modality,
        split: str | None,
        side: int,
        batch_size: int,
        seed: int,
        min_scale: float,
        mask: str | None = None,
        readers: int = 1,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        rank, processes = share
        if batch_size % processes:
            raise ConfigError(
                f"batch_size {batch_size} is not a multiple of the {processes} processes"
            )
        self._dataset, self._snapshot = dataset, snapshot
        self._definition, self._side, self._mask = definition, side, mask
        self._stored = PARTS.get(definition.name, definition.name)
        self._is_part = definition.name in PARTS
        self._turns = _DRAWN if self._is_part else 1  # samples of each label in an epoch
        self._parts = lru_cache(maxsize=_READ)(self._read_parts)
        self._batch_size, self._seed, self._min_scale = batch_size, seed, min_scale
        part = batch_size // processes
        self._slots = range(rank * part, (rank + 1) * part)
        self._readers = readers
        self._refused: set[int] = set()
        self._empty: set[int] = set()
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(self._open)
        self._order = lru_cache(maxsize=2)(self._permutation)
        self._places = self._valid_places(split)
        if not len(self._places):
            raise ConfigError(
                f"{dataset.url}: split {split or 'all'} has no valid label of {self._stored}; "
                f"`fourmill status` says what there is"
            )

    def __len__(self) -> int:
        return len(self._places) * self._turns

    def batches(self, first: int, stop: int) -> Iterator[Batch]:
        """The batches of some steps, made ahead by threads."""
        with ThreadPoolExecutor(self._readers) as pool:
            waiting: list[list[Future[tuple[NDArray[Any], NDArray[Any] | None]]]] = []
            try:
                for step in range(first, min(first + _AHEAD, stop)):
                    waiting.append(self._begin(pool, step))
                for step in range(first, stop):
                    made = [each.result() for each in waiting.pop(0)]
                    if step + _AHEAD < stop:
                        waiting.append(self._begin(pool, step + _AHEAD))
                    yield self._collate(made)
            finally:
                for futures in waiting:
                    for each in futures:
                        each.cancel()

    def first(self, count: int) -> Batch:
        """The first crops of the training, as many as asked for: what a start is taken from."""
        with ThreadPoolExecutor(self._readers) as pool:
            return self._collate(list(pool.map(self._sample, range(count))))

    def labels(
        self, count: int
    ) -> tuple[list[Label], list[NDArray[np.int64]], list[tuple[int, int]], list[str]]:
        """Labels in the dataset's order, or all parts of them, with their centre crops, image sizes
        and keys."""
        labels: list[Label] = []
        crops: list[NDArray[np.int64]] = []
        sizes: list[tuple[int, int]] = []
        keys: list[str] = []
        for shard, row in self._places.tolist():
            try:
                found = self._judged(shard, row, count - len(labels))
            except SampleError as error:
                self._refuse(shard, row, error)
                continue
            key, size = self._facts(shard, row)
            labels += found
            crops += [crop_settings(key, *size, 1)] * len(found)
            sizes += [size] * len(found)
            keys += [key] * len(found)
            if len(labels) == count:
                break
        return labels, crops, sizes, keys

    def _begin(
        self, pool: ThreadPoolExecutor, step: int
    ) -> "list[Future[tuple[NDArray[Any], NDArray[Any] | None]]]":
        return [pool.submit(self._sample, step * self._batch_size + slot) for slot in self._slots]

    def _collate(self, made: list[tuple[NDArray[Any], NDArray[Any] | None]]) -> Batch:
        values = np.concatenate([each for each, _ in made])
        if self._definition.kind is Kind.VECTOR:
            return Batch(torch.from_numpy(values), None)
        if self._is_part:
            return Batch(torch.from_numpy(values).float()[:, None], None)
        masks = [mask for _, mask in made if mask is not None]
        valid = torch.from_numpy(np.concatenate(masks)) if masks else None
        return Batch(to_tensor(self._definition, values), valid)

    def _sample(self, number: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """One crop of a sample; of the next one where it cannot be read."""
        count, turn = divmod(number, self._turns)
        epoch, position = divmod(count, len(self._places))
        unusable = 0
        for step in range(len(self._places)):
            at = int(self._order(epoch)[(position + step) % len(self._places)])
            shard, row = (int(each) for each in self._places[at])
            if at in self._empty:
                continue
            if at not in self._refused:
                try:
                    return self._crop(shard, row, epoch, turn)
                except _Nothing:
                    self._empty.add(at)
                    continue
                except SampleError as error:
                    self._refused.add(at)
                    self._refuse(shard, row, error)
            unusable += 1
            if unusable == _REPLACEMENTS:
                raise TrainingError(
                    f"{self._definition.name}: {_REPLACEMENTS} labels in a row cannot be used; the "
                    f"log says why, `fourmill verify` looks at all"
                )
        raise TrainingError(
            f"{self._stored}: no label of the split can be used, or all are without a "
            f"{self._definition.name}; `fourmill verify` looks at all"
        )

    def _crop(
        self, shard: int, row: int, epoch: int, turn: int
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        if self._is_part:
            return self._part(shard, row, epoch, turn), None
        label = self._label(shard, row)
        if self._definition.kind is Kind.VECTOR:
            check_label(self._definition, label)
            return np.asarray(label, np.float32)[None], None
        key, size = self._facts(shard, row)
        seed = self._seed + epoch  # the first row is always the centre, so the second is taken
        crops = crop_settings(key, *size, 2, seed, self._min_scale)[1:]
        values = cut(self._definition, label, crops, size, self._side)
        return values, self._valid(shard, row, crops, size)

    def _part(self, shard: int, row: int, epoch: int, turn: int) -> NDArray[Any]:
        """One of a label's parts as the network sees it: `[1, …]`."""
        parts = self._parts(shard, row)
        if not parts:
            raise _Nothing(self._stored, f"no {self._definition.name} in it")
        draws = np.random.default_rng([self._seed, epoch, shard, row])
        which = draws.permutation(len(parts))[turn % len(parts)]
        is_mirrored = bool(draws.integers(2, size=_DRAWN)[turn])
        values = np.asarray(parts[which](is_mirrored))
        if self._definition.kind is Kind.VECTOR:
            return values[None]
        return fit_mask(values, self._side)[None]

    def _judged(self, shard: int, row: int, count: int) -> list[Label]:
        """The label, or its first parts, as many as asked for at most.

        Raises:
            SampleError: a label of wrong shape, range or type.
        """
        if self._is_part:
            return [each(False) for each in self._parts(shard, row)[:count]]
        label = self._label(shard, row)
        check_label(self._definition, label)
        return [label]

    def _read_parts(self, shard: int, row: int) -> list[Part]:
        label = self._label(shard, row)
        check_label(modality(self._stored), label)
        return parts_of(self._definition.name, label)

    def _valid(
        self, shard: int, row: int, crops: NDArray[np.int64], size: tuple[int, int]
    ) -> NDArray[np.bool_] | None:
        if self._mask is None:
            return None
        mask = self._shard(self._mask, shard).label(row)
        if not isinstance(mask, np.ndarray) or mask.ndim != 2:
            raise SampleError(self._mask, "found no mask, expected [H, W]")
        cropped: NDArray[Any] = crop_dense(mask, Kind.CLASSES, crops, size, self._side)
        return cropped > _VALID

    def _label(self, shard: int, row: int) -> Label:
        label = self._shard(self._stored, shard).label(row)
        assert label is not None, "places are valid ones"
        return label

    def _facts(self, shard: int, row: int) -> tuple[str, tuple[int, int]]:
        pictures = self._shard("rgb", shard)
        return pictures.keys[row], image_size(pictures.payload(row))

    def _refuse(self, shard: int, row: int, error: SampleError) -> None:
        url = self._shard(self._stored, shard).url
        key = self._shard("rgb", shard).keys[row]
        _log.warning("%s: sample %s is left out: %s", url, key, error)

    def _open(self, modality: str, shard: int) -> Shard:
        return self._dataset.shard(modality, shard, self._snapshot)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._places))

    def _valid_places(self, split: str | None) -> NDArray[np.int64]:
        """(shard, row) of every valid label."""
        places = []
        for shard in self._dataset.shard_indices(split):
            rows = np.flatnonzero(self._shard(self._stored, shard).record.valid)
            places.append(np.stack([np.full_like(rows, shard), rows], axis=1))
        return np.concatenate(places) if places else np.zeros((0, 2), np.int64)
