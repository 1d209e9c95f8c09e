"""Batches from a pinned snapshot: in an order that is a function of (seed, position), and no state.

What the loader has given is one integer, the number of positions. Samples, crops and masks follow
from it: a run that was killed goes on with the very batch that it would have had, and any number of
processes share the positions of a step out among them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking
from fourmill.manifests.packages import cache_folder
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.arrays import Column, Files, Numbers, Places, Rows, Tokens
from fourmill.train.batch import Batch
from fourmill.train.cache import ShardCache
from fourmill.train.domains import CONTINUOUS, Domains
from fourmill.train.groups import GroupedShuffle
from fourmill.train.marked import kept
from fourmill.train.members import Vectors
from fourmill.train.order import Shuffle, below, hashed
from fourmill.train.pixels import PixelReader
from fourmill.train.prefetch import Ahead

WantsPixels: TypeAlias = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Of samples and visits, which may show which pixels (`Masking.wants_pixels`): others get zeros."""

CHECKED_BYTES = 2**31
"""Of shards that are read whole before a training begins: some seconds."""

_CACHE_BYTES = 100 * 2**30  # of shards, unless told otherwise


class Loader(ABC):
    """Samples by their positions, counted from 0 over all epochs.

    Attributes:
        batch_size: samples of a batch.
        num_crops: of each sample.
    """

    batch_size: int
    num_crops: int

    @abstractmethod
    def __len__(self) -> int:
        """Samples."""

    @property
    @abstractmethod
    def keys(self) -> list[str]:
        """The samples' keys, in the order of `rows`."""

    @abstractmethod
    def at(
        self, positions: Int64[np.ndarray, " batch"], wants_pixels: WantsPixels | None = None
    ) -> Batch:
        """The samples at some positions.

        Raises:
            ConfigError: tokens outside of their vocabulary.
            ShardError: a shard is not what the manifest says.
            StoreError: a store refuses, or cannot be reached.
        """

    @abstractmethod
    def announce(self, positions: Int64[np.ndarray, " batch"]) -> None:
        """Have shards of an object store fetched that `at` will need."""

    @abstractmethod
    def rows(
        self, rows: Int64[np.ndarray, " batch"], wants_pixels: WantsPixels | None = None
    ) -> Batch:
        """The first crops of some of the samples, in the order that they are stored in."""

    @abstractmethod
    def check(self, most_bytes: int = CHECKED_BYTES, part: int = 0, parts: int = 1) -> None:
        """Read whole shards for what would else turn up in mid-training, as far as `most_bytes` go.

        Shards of a store are compared with the manifest when they are fetched.

        Args:
            part: of `parts` that several processes check together.

        Raises:
            ConfigError: tokens outside of their vocabulary.
            ShardError: a shard is not what the manifest says.
        """

    def batch(self, number: int, wants_pixels: WantsPixels | None = None) -> Batch:
        """Batch `number`, counted from 0 over all epochs; one may reach into the next epoch."""
        return self.at(number * self.batch_size + np.arange(self.batch_size), wants_pixels)

    def all(self, wants_pixels: WantsPixels | None = None) -> Iterator[Batch]:
        """Every sample once, in order, by its first crop, always with the same masks."""
        for start in range(0, len(self), self.batch_size):
            stop = min(start + self.batch_size, len(self))
            yield self.rows(np.arange(start, stop), wants_pixels)

    def read_ahead(
        self,
        parts: Iterable[NDArray[np.int64]],
        depth: int = 2,
        wants_pixels: WantsPixels | None = None,
    ) -> Ahead[NDArray[np.int64], Batch]:
        """The samples at some positions after others, made while the caller computes."""

        def announced() -> Iterator[NDArray[np.int64]]:
            for each in parts:
                self.announce(each)
                yield each

        return Ahead(lambda part: self.at(part, wants_pixels), announced(), depth)


class TokenLoader(Loader):
    """Samples of one split.

    Args:
        seed: of the order, and of which crop of a sample is shown at which visit.
        cache_bytes: memory for decoded pixels.
        threads: that decode them.
        cache: of shards in an object store; by default a folder of the user.
        fraction: of the samples that are used: the same whatever the seed, and those of a smaller
            fraction are among those of a larger one.
        first_id: is added to the samples' ids.
        together: shards whose rows are shuffled among each other, one such group after another;
            by default all.
        where: samples alone that this modality of marks keeps (`fourmill mark`); a fraction is one
            of them.

    Raises:
        UnknownNameError: there is no such modality as `where`.
        ConfigError: the split is empty, `where` names no marks or they keep nothing, crops are not
            the same in number, or a version has other numbers of tokens than its modality.
        ShardError: a version's records are not of one size.
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
        cache: ShardCache | None = None,
        fraction: float = 1.0,
        first_id: int = 0,
        together: int | None = None,
        where: str | None = None,
    ) -> None:
        if split not in snapshot.splits:
            raise ConfigError(f"{dataset.url} has no split {split!r}: ingest it with held_out > 0")
        shards = [i for start, stop in snapshot.splits[split] for i in range(start, stop)]
        self._rows = Rows(dataset, snapshot, shards)
        if not len(self._rows):
            raise ConfigError(f"{dataset.url}: the split {split!r} holds no samples")
        self.batch_size = batch_size
        self.seed = seed
        self._first_id = first_id
        self._kept = None if where is None else kept(self._rows, where)
        usable, starts = len(self._rows), self._rows.starts
        if self._kept is not None:
            usable, starts = len(self._kept), np.searchsorted(self._kept, starts)
        if not usable:
            raise ConfigError(f"{dataset.url}: {where} keeps no sample of the split {split!r}")
        self._choice = Shuffle(usable)
        self._length = max(1, round(fraction * usable))
        self._order = Shuffle(self._length)
        self._groups = GroupedShuffle(starts, together, seed) if together else None
        pixels = [each for each in domains.modalities if each.masking is Masking.PIXELS]
        tokens = [each for each in domains.modalities if each.masking not in CONTINUOUS]
        vectors = [each for each in domains.modalities if each.masking is Masking.EMBEDDING]
        self._cache = cache
        self._versions = len(tokens) + len(vectors) + 2 * bool(pixels)
        self._tokens = {each.name: Tokens(each, self._files(each.name)) for each in tokens}
        self._vectors = {each.name: Vectors(each, self._files(each.name)) for each in vectors}
        self._threads = threads
        self._pixels = {
            each.name: self._pixel_reader(each.input_size, cache_bytes // len(pixels))
            for each in pixels
        }
        self.num_crops = self._count_crops()

    def __len__(self) -> int:
        return self._length

    @property
    def keys(self) -> list[str]:
        name = next(iter(self._tokens))
        numbers = range(len(self._rows.shards))
        keys = [key for each in numbers for key in self._rows.shard(name, each).keys]
        return [keys[row] for row in self._chosen(np.arange(len(self))).tolist()]

    def at(
        self, positions: Int64[np.ndarray, " batch"], wants_pixels: WantsPixels | None = None
    ) -> Batch:
        places, visits = self._locate(positions)
        ids = self._rows.ids(places) + self._first_id
        crop = below(self.num_crops, hashed("crop", self.seed, ids, visits))
        return self._read(places, crop, visits, wants_pixels)

    def announce(self, positions: Numbers) -> None:
        remote = [files for files in self._checks if not files.is_local]
        if remote:
            places, _ = self._locate(positions)
            for files in remote:
                files.begin(places.shard)

    def rows(self, rows: Numbers, wants_pixels: WantsPixels | None = None) -> Batch:
        zeros = np.zeros(len(rows), np.int64)
        return self._read(self._rows.locate(self._chosen(rows)), zeros, zeros, wants_pixels)

    def images(self, rows: NDArray[np.int64], size: int) -> UInt8[np.ndarray, "batch size size 3"]:
        """The first crops of some rows as pixels, whether or not the model sees pixels."""
        places = self._rows.locate(self._chosen(rows))
        crops, _ = self._pixel_reader(size, 0).read(places, np.zeros(len(rows), np.int64))
        return crops

    def check(self, most_bytes: int = CHECKED_BYTES, part: int = 0, parts: int = 1) -> None:
        left = most_bytes
        work: list[tuple[Callable[[int], None], int]] = []
        for shard in range(part, len(self._rows.shards), parts):
            for files, check in self._checks.items():
                left -= int(files.bytes[shard])
                if files.is_local and left >= 0:
                    work.append((check, shard))
        with ThreadPoolExecutor(self._threads) as pool:
            for each in [pool.submit(check, shard) for check, shard in work]:
                each.result()

    @property
    def _checks(self) -> dict[Files, Callable[[int], None]]:
        """All that is read, and what finds a broken shard of it."""
        checks: dict[Files, Callable[[int], None]] = {
            each.column.files: each.check for each in self._tokens.values()
        }
        checks |= {each.files: each.files.verify for each in self._vectors.values()}
        for reader in self._pixels.values():
            checks |= {files: files.verify for files in reader.files}
        return checks

    def _locate(self, positions: Numbers) -> tuple[Places, Numbers]:
        visits, places = np.divmod(positions, len(self))
        if self._groups is not None:
            return self._rows.locate(self._of_kept(self._groups(places, visits))), visits
        order = self._order(places, hashed("order", self.seed, visits))
        return self._rows.locate(self._chosen(order)), visits

    def _chosen(self, numbers: Numbers) -> Numbers:
        """Rows of the split, of those that are used."""
        if len(self) == self._choice.size:
            return self._of_kept(numbers)
        return self._of_kept(self._choice(numbers, hashed("fraction", 0, np.zeros_like(numbers))))

    def _of_kept(self, numbers: Numbers) -> Numbers:
        """Rows of the split, by their place among those that marks keep."""
        return numbers if self._kept is None else self._kept[numbers]

    def _files(self, modality: str) -> Files:
        is_local = self._rows.shard(modality, 0).local_path is not None
        if not is_local and self._cache is None:
            self._cache = ShardCache(cache_folder() / "shards", _CACHE_BYTES)
        return Files(self._rows, modality, self._cache, self._versions)

    def _pixel_reader(self, size: int, cache_bytes: int) -> PixelReader:
        settings = Column(self._files("crop_settings"))
        return PixelReader(self._files("rgb"), settings, size, cache_bytes, self._threads)

    def _read(
        self, places: Places, crop: Numbers, visits: Numbers, wants_pixels: WantsPixels | None
    ) -> Batch:
        tokens, pixels, vectors, valid = {}, {}, {}, {}
        for name, each in self._tokens.items():
            tokens[name] = _tensor(each.read(places, crop))
            valid[name] = _tensor(each.column.files.valid(places.rows))
        for name, sequences in self._vectors.items():
            found = [_tensor(each) for each in sequences.read(places)]
            tokens[name], vectors[name], valid[name] = found
        ids = _tensor(self._rows.ids(places) + self._first_id)
        seen = _tensor(visits)
        wants: Mapping[str, Tensor] = {}
        if wants_pixels is not None and self._pixels:
            wants = wants_pixels(ids, seen)
        for name, reader in self._pixels.items():
            wanted = wants[name].numpy() if name in wants else None
            values, is_valid = reader.read(places, crop, wanted)
            pixels[name], valid[name] = _tensor(values), _tensor(is_valid)
        return Batch(ids, seen, tokens, valid, pixels, vectors)

    def _count_crops(self) -> int:
        counts = {name: each.column.num_crops for name, each in self._tokens.items()}
        found = {name: count for name, count in counts.items() if count}
        if len(set(found.values())) > 1:
            raise ConfigError(f"modalities with different numbers of crops: {found}")
        count = next(iter(found.values()), 1)
        for reader in self._pixels.values():
            if reader.num_crops < count:
                raise ConfigError(f"{reader.num_crops} crop_settings for {count} crops of tokens")
        return count


def _tensor(array: NDArray[Any]) -> Tensor:
    """In memory from which a GPU takes it while the CPU goes on, where one is in use."""
    tensor = torch.from_numpy(array)
    is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return tensor.pin_memory() if is_used else tensor
