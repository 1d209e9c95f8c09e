"""The order of samples: any place of it is answered, and each comes once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourmill.train.groups import GroupedShuffle
from fourmill.train.order import Shuffle, below, hashed


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**63))
def test_every_number_comes_once(size: int, seed: int) -> None:
    places = np.arange(size)
    order = Shuffle(size)(places, hashed("order", seed, np.zeros_like(places)))
    np.testing.assert_array_equal(np.sort(order), places)


@given(size=st.integers(2, 2**40), seed=st.integers(0, 100), data=st.data())
def test_a_place_is_answered_alone_as_among_others(
    size: int, seed: int, data: st.DataObject
) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    keys = hashed("order", seed, places % 3)
    together = Shuffle(size)(places, keys)
    assert together.min() >= 0
    assert together.max() < size
    alone = [int(Shuffle(size)(places[i : i + 1], keys[i : i + 1])[0]) for i in range(len(places))]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [100, 4096])
def test_each_number_is_as_likely_at_each_place(size: int) -> None:
    epochs = np.repeat(np.arange(400), size)
    order = Shuffle(size)(np.tile(np.arange(size), 400), hashed("order", 1, epochs))
    rows = order.reshape(400, size)
    for numbers, possible in (
        (rows[:, 0], np.arange(size)),
        (np.diff(rows) % size, np.arange(1, size)),
    ):
        counts, expected = (np.histogram(each, 20, (0, size))[0] for each in (numbers, possible))
        expected = expected * numbers.size / possible.size
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 60  # 19 degrees of freedom: less likely than one in a million


def test_draws_below_a_limit_are_even() -> None:
    draws = below(10, hashed("crop", 0, np.arange(100_000)))
    counts = np.bincount(draws, minlength=10)
    assert len(counts) == 10
    assert abs(counts - 10_000).max() < 500  # five standard deviations


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any),
    together=st.integers(1, 15),
)
def test_within_groups_of_shards_every_row_comes_once_and_no_shard_twice(
    sizes: list[int], together: int
) -> None:
    starts = np.cumsum([0, *sizes])
    order = GroupedShuffle(starts, together, seed=0)
    count = int(starts[-1])
    positions = np.arange(2 * count)
    rows = order(positions % count, positions // count)
    for epoch in rows.reshape(2, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))
        shards = np.searchsorted(starts, epoch, side="right") - 1
        seen = [np.flatnonzero(shards == each) for each in np.unique(shards)]
        begun = np.array([each[0] for each in seen])
        ended = np.array([each[-1] for each in seen])
        open_at = [int(((begun <= place) & (ended >= place)).sum()) for place in range(count)]
        assert max(open_at) <= together
    alone = [int(order(np.array([p % count]), np.array([p // count]))[0]) for p in positions[:20]]
    assert rows[:20].tolist() == alone
