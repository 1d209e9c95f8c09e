"""Which modalities of a snapshot a run uses, and their shards as arrays of rows."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, Integer
from numpy.typing import NDArray

from fourmill.manifests import modalities as known
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Masking, Modality
from fourmill.manifests.shards import Shard
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.domains import Domains

_PIXELS = re.compile(r"rgb@(\d+)")


def domains_of(
    snapshot: Snapshot,
    inputs: Sequence[str] | None,
    targets: Sequence[str] | None,
    pixel_patch: int,
) -> Domains:
    """The modalities of a run, as the snapshot defines them.

    Args:
        inputs: names, `rgb@112` for pixels; by default all tokens, and pixels at the size of the
            token grids.
        targets: names; by default all tokens.

    Raises:
        UnknownNameError: the snapshot has no such modality.
        ConfigError: pixels without `rgb` and `crop_settings`, or of a size that is no multiple of
            the patch.
    """
    tokens = {
        name: entry.definition
        for name, entry in snapshot.modalities.items()
        if entry.definition.kind is Kind.TOKENS and entry.definition.masking is not None
    }
    names = list(tokens)
    if {"rgb", "crop_settings"} <= snapshot.modalities.keys():
        sizes = {each.input_size for each in tokens.values() if each.input_size}
        names += [f"rgb@{size}" for size in sorted(sizes)]
    chosen = list(inputs) if inputs is not None else names
    pixels = [_pixels(name, pixel_patch, snapshot) for name in chosen if _PIXELS.fullmatch(name)]
    every = [*tokens.values(), *pixels]
    for name in (*chosen, *(targets or ())):
        if name not in {each.name for each in every}:
            raise UnknownNameError("modality with tokens in this snapshot", name, names)
    return Domains.of(every, chosen, list(targets) if targets is not None else list(tokens))


def _pixels(name: str, patch: int, snapshot: Snapshot) -> Modality:
    for needed in ("rgb", "crop_settings"):
        if needed not in snapshot.modalities:
            raise ConfigError(
                f"{name} is cut from rgb by crop_settings; the snapshot lacks {needed}"
            )
    if name in known.modality_names() and known.modality(name).patch_size == patch:
        return known.modality(name)
    size = int(name.removeprefix("rgb@"))
    if size % patch:
        raise ConfigError(f"{name}: its size is not a multiple of pixel_patch {patch}")
    return Modality(
        name, Kind.IMAGE, "rgb", "jpg", Masking.PIXELS, 0, (size // patch) ** 2, size, patch,
        channels=3,
    )  # fmt: skip


class Rows:
    """The rows of some shards of a snapshot, as one sequence.

    Attributes:
        ids: row of each in the whole snapshot: what masks and crops are keyed by.
        starts: row at which each shard begins, and at last the number of rows.
    """

    def __init__(self, dataset: Dataset, snapshot: Snapshot, shards: Sequence[int]) -> None:
        self._dataset = dataset
        self._snapshot = snapshot
        self._shards = list(shards)
        reference = min(snapshot.modalities)
        counts = [
            dataset.shard(reference, index, snapshot).record.samples
            for index in range(snapshot.num_shards)
        ]
        first = np.cumsum([0, *counts])
        self.starts = np.cumsum([0, *(counts[index] for index in self._shards)])
        own = [np.arange(first[index], first[index + 1]) for index in self._shards]
        self.ids: NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *own])

    def __len__(self) -> int:
        return len(self.ids)

    def shards(self, modality: str) -> list[Shard]:
        """The shards of a modality."""
        return [self._dataset.shard(modality, each, self._snapshot) for each in self._shards]


class TokenColumn:
    """The tokens of one modality, memory-mapped shard by shard.

    Raises:
        ConfigError: at the first read of a shard, ids outside of the vocabulary.
    """

    def __init__(self, modality: Modality, rows: Rows) -> None:
        self._modality = modality
        self._shards = rows.shards(modality.name)
        self._starts = rows.starts
        self._arrays: dict[int, NDArray[np.integer]] = {}

    @property
    def num_crops(self) -> int:
        """Crops of each sample; 0 where tokens do not depend on the crop."""
        array = self._array(0)
        return array.shape[1] if array.ndim == 3 else 0

    def read(
        self, rows: Int64[np.ndarray, " batch"], crop: Int64[np.ndarray, " batch"]
    ) -> tuple[Integer[np.ndarray, "batch length"], Bool[np.ndarray, " batch"]]:
        """Tokens of one crop of each row, and whether they mean anything."""
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        first = self._array(int(shard_of[0]))
        tokens = np.empty((len(rows), first.shape[-1]), first.dtype)
        valid = np.empty(len(rows), bool)
        for shard in np.unique(shard_of).tolist():
            places = np.flatnonzero(shard_of == shard)
            local = rows[places] - self._starts[shard]
            array = self._array(shard)
            tokens[places] = array[local, crop[places]] if array.ndim == 3 else array[local]
            valid[places] = self._shards[shard].record.valid[local]
        return tokens, valid

    def _array(self, shard: int) -> NDArray[np.integer]:
        if shard not in self._arrays:
            array = self._shards[shard].array()
            if array.size and not 0 <= array.min() <= array.max() < self._modality.vocab_size:
                raise ConfigError(
                    f"{self._shards[shard].url}: tokens from {array.min()} to {array.max()}, the "
                    f"vocabulary of {self._modality.name} has {self._modality.vocab_size}: "
                    f"tokenize again"
                )
            self._arrays[shard] = array
        return self._arrays[shard]
