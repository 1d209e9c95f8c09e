"""An order for datasets that are larger than the disk before them: within groups of shards."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from fourmill.train.order import Numbers, Shuffle, hashed


@dataclass(frozen=True)
class _Layout:
    """The shards of one epoch, one behind the other.

    Attributes:
        shards: in the order of the epoch.
        starts: place at which each of them begins.
        groups: place at which each group begins, and at last the number of rows.
    """

    shards: Int64[np.ndarray, " shards"]
    starts: Int64[np.ndarray, " shards"]
    groups: Int64[np.ndarray, " bounds"]


class GroupedShuffle:
    """Shards in a random order, and rows in a random order within each so many shards.

    Args:
        starts: row at which each shard begins, and at last the number of rows.
        together: shards of a group.
    """

    def __init__(self, starts: Int64[np.ndarray, " bounds"], together: int, seed: int) -> None:
        self._starts = starts
        self._together = together
        self._seed = seed
        self._layout = lru_cache(4)(self._lay_out)

    def __call__(self, places: Numbers, epochs: Numbers) -> Numbers:
        """The rows that stand at places of epochs."""
        rows = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            layout, own = self._layout(epoch), epochs == epoch
            rows[own] = self._rows(layout, places[own], epoch)
        return rows

    def _rows(self, layout: _Layout, places: Numbers, epoch: int) -> Numbers:
        group = np.searchsorted(layout.groups, places, side="right") - 1
        moved = np.empty_like(places)
        for each in np.unique(group).tolist():
            own = group == each
            start = int(layout.groups[each])
            within = places[own] - start
            keys = hashed("group", self._seed, np.full_like(within, epoch), group[own])
            moved[own] = start + Shuffle(int(layout.groups[each + 1]) - start)(within, keys)
        number = np.searchsorted(layout.starts, moved, side="right") - 1
        rows: Numbers = self._starts[layout.shards[number]] + moved - layout.starts[number]
        return rows

    def _lay_out(self, epoch: int) -> _Layout:
        count = len(self._starts) - 1
        epochs = np.full(count, epoch)
        shards = hashed("shards", self._seed, epochs, np.arange(count)).argsort(kind="stable")
        ends = np.cumsum(np.diff(self._starts)[shards])
        starts = ends - np.diff(self._starts)[shards]
        return _Layout(shards, starts, np.append(starts[:: self._together], ends[-1]))
