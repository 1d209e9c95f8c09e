"""Random places of grids: a random order of all places, of which the first are taken."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from fourmill.train.counters import short_hashes


def random_orders(
    keys: Int64[Tensor, "batch grids"], sizes: Sequence[int]
) -> Int32[Tensor, "batch places"]:
    """The places of each grid in a random order, the grids one after another.

    Args:
        keys: of each grid of each sample.
        sizes: places of each grid; grids of one size that stand together are done together.
    """
    orders, start = [], 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and sizes[stop] == sizes[start]:
            stop += 1
        orders.append(_orders(keys[:, start:stop], sizes[start]).flatten(1))
        start = stop
    return torch.cat(orders, 1) if orders else keys.new_zeros(len(keys), 0).int()


def _orders(keys: Int64[Tensor, "batch grids"], size: int) -> Int32[Tensor, "batch grids {size}"]:
    """Hashes are sorted that say their places in their last bits, where nobody misses them."""
    bits = (1 << (size - 1).bit_length()) - 1
    place = torch.arange(size, dtype=torch.int32, device=keys.device)
    packed = short_hashes(keys[..., None], place) & ~bits | place
    return _sorted(packed) & bits


def _sorted(values: Int32[Tensor, "*rows columns"]) -> Int32[Tensor, "*rows columns"]:
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))  # 25 times as fast as torch's
    return values.sort(-1).values
