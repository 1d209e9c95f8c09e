"""Batches from a pinned snapshot: in an order that is a function of (seed, epoch), and no state.

What the loader has given is one integer, the number of batches. Order, crops and masks follow from
it, so that a run that was killed goes on with the very batch that it would have had.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.batch import Batch
from fourmill.train.counters import hashes, integers, sample_keys
from fourmill.train.data import Rows, TokenColumn
from fourmill.train.domains import Domains
from fourmill.train.pixels import PixelReader
from fourmill.train.prefetch import Ahead


class TokenLoader:
    """Samples of one split.

    Args:
        seed: of the order, and of which crop of a sample is shown at which visit.
        cache_bytes: memory for decoded pixels.
        threads: that decode them.

    Raises:
        ConfigError: the split is empty, or crops are not the same in number.
    """

    def __init__(
        self,
        dataset: Dataset,
        snapshot: Snapshot,
        domains: Domains,
        split: str,
        batch_size: int,
        seed: int = 0,
        cache_bytes: int = 2**31,
        threads: int = 2,
    ) -> None:
        if split not in snapshot.splits:
            raise ConfigError(f"{dataset.url} has no split {split!r}: ingest it with held_out > 0")
        shards = [i for start, stop in snapshot.splits[split] for i in range(start, stop)]
        self._rows = Rows(dataset, snapshot, shards)
        if not len(self._rows):
            raise ConfigError(f"{dataset.url}: the split {split!r} holds no samples")
        self.batch_size = batch_size
        self.seed = seed
        pixels = [each for each in domains.modalities if each.masking is Masking.PIXELS]
        tokens = [each for each in domains.modalities if each.masking is not Masking.PIXELS]
        self._columns = {each.name: TokenColumn(each, self._rows) for each in tokens}
        self._threads = threads
        self._pixels = {
            each.name: self._pixel_reader(each.input_size, cache_bytes // len(pixels))
            for each in pixels
        }
        self.num_crops = self._count_crops()
        self._order: tuple[int, Int64[np.ndarray, " rows"]] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def keys(self) -> list[str]:
        """The samples' keys, row by row."""
        shards = self._rows.shards(next(iter(self._columns)))
        return [key for shard in shards for key in shard.keys]

    def batch(self, number: int) -> Batch:
        """Batch `number`, counted from 0 over all epochs; one may reach into the next epoch."""
        return self.at(number * self.batch_size + np.arange(self.batch_size))

    def at(self, positions: Int64[np.ndarray, " batch"]) -> Batch:
        """The samples at some positions, counted from 0 over all epochs."""
        epochs, places = np.divmod(positions, len(self))
        rows = np.empty_like(places)
        for each in np.unique(epochs).tolist():
            rows[epochs == each] = self._permutation(each)[places[epochs == each]]
        ids, visits = torch.from_numpy(self._rows.ids[rows]), torch.from_numpy(epochs)
        crop = integers(sample_keys(self.seed, ids, visits), "crop", 0, self.num_crops - 1)
        return self._read(rows, crop.numpy(), visits)

    def read_ahead(
        self, parts: Iterable[Int64[np.ndarray, " batch"]], depth: int = 2
    ) -> Ahead[Int64[np.ndarray, " batch"], Batch]:
        """The samples at some positions after others, made while the caller computes."""
        return Ahead(self.at, parts, depth)

    def all(self) -> Iterator[Batch]:
        """Every sample once, in order, by its first crop, always with the same masks."""
        for start in range(0, len(self), self.batch_size):
            yield self.rows(np.arange(start, min(start + self.batch_size, len(self))))

    def rows(self, rows: NDArray[np.int64]) -> Batch:
        """The first crops of some rows of the split."""
        zeros = np.zeros(len(rows), np.int64)
        return self._read(rows, zeros, torch.from_numpy(zeros))

    def images(self, rows: NDArray[np.int64], size: int) -> UInt8[np.ndarray, "batch size size 3"]:
        """The first crops of some rows as pixels, whether or not the model sees pixels."""
        crops, _ = self._pixel_reader(size, 0).read(rows, np.zeros(len(rows), np.int64))
        return crops

    def _pixel_reader(self, size: int, cache_bytes: int) -> PixelReader:
        images, settings = self._rows.shards("rgb"), self._rows.shards("crop_settings")
        return PixelReader(images, settings, self._rows.starts, size, cache_bytes, self._threads)

    def _read(
        self, rows: NDArray[np.int64], crop: NDArray[np.int64], visits: torch.Tensor
    ) -> Batch:
        tokens, pixels, valid = {}, {}, {}
        for name, column in self._columns.items():
            values, is_valid = column.read(rows, crop)
            tokens[name], valid[name] = torch.from_numpy(values), torch.from_numpy(is_valid)
        for name, reader in self._pixels.items():
            values, is_valid = reader.read(rows, crop)
            pixels[name], valid[name] = torch.from_numpy(values), torch.from_numpy(is_valid)
        return Batch(torch.from_numpy(self._rows.ids[rows]), visits, tokens, valid, pixels)

    def _permutation(self, epoch: int) -> Int64[np.ndarray, " rows"]:
        if self._order[0] != epoch:
            key = sample_keys(self.seed, torch.tensor([epoch]), torch.tensor([0]))
            order = hashes(key, "order", len(self))[0].argsort()
            self._order = (epoch, order.numpy())
        return self._order[1]

    def _count_crops(self) -> int:
        counts = {
            name: column.num_crops for name, column in self._columns.items() if column.num_crops
        }
        if len(set(counts.values())) > 1:
            raise ConfigError(f"modalities with different numbers of crops: {counts}")
        return next(iter(counts.values()), 1)
