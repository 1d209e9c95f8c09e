"""Several datasets as one: which sample of which comes when is a function of the position."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.train.arrays import Numbers
from fourmill.train.batch import Batch
from fourmill.train.loader import CHECKED_BYTES, Loader, WantsPixels
from fourmill.train.order import Shuffle, hashed

BLOCK = 10_000
"""Positions in which each dataset has its share exactly, to one in ten thousand."""


class MixedLoader(Loader):
    """Samples of several loaders by weight; each runs through epochs of its own.

    Positions come in blocks, in which each dataset has so many slots; the order of a block's slots
    is a permutation. So it is known of any position, without a state, how many samples of each
    dataset came before.

    Args:
        loaders: with `first_id` such that no two samples have one id.
        weights: one a loader.
        seed: of the order in which they take turns.

    Raises:
        ConfigError: a weight that is less than a ten thousandth of all.
    """

    def __init__(self, loaders: Sequence[Loader], weights: Sequence[float], seed: int = 0) -> None:
        self.loaders = list(loaders)
        self.batch_size = self.loaders[0].batch_size
        self.num_crops = max(each.num_crops for each in self.loaders)
        self.seed = seed
        self._shares = np.array(shares(weights), np.int64)
        self._firsts = np.cumsum(self._shares) - self._shares
        self._slots = Shuffle(BLOCK)
        self._bounds = np.cumsum([0, *(len(each) for each in self.loaders)])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    @property
    def keys(self) -> list[str]:
        return [key for each in self.loaders for key in each.keys]

    def at(self, positions: Numbers, wants_pixels: WantsPixels | None = None) -> Batch:
        which, inner = self._locate(positions)
        chosen = np.unique(which).tolist()
        parts = [self.loaders[each].at(inner[which == each], wants_pixels) for each in chosen]
        return _joined(parts, which)

    def announce(self, positions: Numbers) -> None:
        which, inner = self._locate(positions)
        for number, each in enumerate(self.loaders):
            each.announce(inner[which == number])

    def rows(self, rows: Numbers, wants_pixels: WantsPixels | None = None) -> Batch:
        which = np.searchsorted(self._bounds, rows, side="right") - 1
        inner = rows - self._bounds[which]
        chosen = np.unique(which).tolist()
        parts = [self.loaders[each].rows(inner[which == each], wants_pixels) for each in chosen]
        return _joined(parts, which)

    def check(self, most_bytes: int = CHECKED_BYTES, part: int = 0, parts: int = 1) -> None:
        for each in self.loaders:
            each.check(most_bytes // len(self.loaders), part, parts)

    def _locate(self, positions: Numbers) -> tuple[Numbers, Numbers]:
        """Which dataset, and which position of it."""
        blocks, places = np.divmod(positions, BLOCK)
        slots = self._slots(places, hashed("mixture", self.seed, blocks))
        which = np.searchsorted(self._firsts, slots, side="right") - 1
        return which, blocks * self._shares[which] + slots - self._firsts[which]


def shares(weights: Sequence[float]) -> list[int]:
    """Slots of a block for each weight, by the largest remainders.

    >>> shares([1, 2])
    [3333, 6667]
    """
    exact = BLOCK * np.array(weights, np.float64) / sum(weights)
    whole = np.floor(exact).astype(np.int64)
    for each in np.argsort(whole - exact, kind="stable")[: BLOCK - int(whole.sum())].tolist():
        whole[each] += 1
    if not whole.all():
        raise ConfigError(
            f"weights {list(weights)}: the smallest is less than 1 in {BLOCK} of all; leave that "
            f"dataset out, or raise its weight"
        )
    return [int(each) for each in whole]


def _joined(parts: Sequence[Batch], which: NDArray[np.int64]) -> Batch:
    """Batches of several datasets as one, in the order of the positions."""
    if len(parts) == 1:
        return parts[0]

    def join(own: Sequence[torch.Tensor]) -> torch.Tensor:
        joined = torch.cat(list(own))[order]
        return joined.pin_memory() if own[0].is_pinned() else joined

    order = torch.from_numpy(np.argsort(np.argsort(which, kind="stable"), kind="stable"))
    values: dict[str, Any] = {}
    for field in fields(Batch):
        own = [getattr(each, field.name) for each in parts]
        if isinstance(own[0], torch.Tensor):
            values[field.name] = join(own)
        else:
            values[field.name] = {name: join([each[name] for each in own]) for name in own[0]}
    return Batch(**values)
