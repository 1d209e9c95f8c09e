"""Orders and choices as functions of a number: any place is answered, no table is ever made.

Hashes are those of `counters.py` in kind, on the host, where the loader is.
"""

import hashlib
import math
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt64
from numpy.typing import NDArray

Hashes = UInt64[np.ndarray, " batch"]
Numbers = Int64[np.ndarray, " batch"]

_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = [((2 * turn) * _GOLDEN % 2**64, (2 * turn + 1) * _GOLDEN % 2**64) for turn in range(4)]


class Shuffle:
    """Permutations of `0..size-1`, one for each key; 100 million are shuffled as fast as ten.

    A number is two digits, and each digit in turn is moved on by a hash of the other: a Feistel
    network on a domain of any size (Black and Rogaway 2002). The digits' domain is larger than
    `size` by less than its root; whoever ends outside walks on until inside.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._high = math.isqrt(size - 1) + 1
        self._low = -(-size // self._high)

    def __call__(self, place: Numbers, key: Hashes) -> Numbers:
        """What each permutation, named by its key, has at a place."""
        result = self._walk(place.astype(np.uint64), key)
        while (outside := np.flatnonzero(result >= self.size)).size:
            result[outside] = self._walk(result[outside], key[outside])
        return result.astype(np.int64)

    def _walk(self, number: Hashes, key: Hashes) -> Hashes:
        high, low = np.divmod(number, self._low)
        for first, second in _ROUNDS:
            high = _moved(high, _mix((key + first) ^ low), self._high)
            low = _moved(low, _mix((key + second) ^ high), self._low)
        result: NDArray[np.uint64] = high * self._low + low
        return result


def hashed(stream: str, seed: int, *numbers: Numbers) -> Hashes:
    """A hash for each tuple of numbers."""
    state = np.full_like(numbers[0], _start(f"{stream} {seed}"), np.uint64)
    for each in numbers:
        state = _mix(state + each.astype(np.uint64) * _GOLDEN)
    return state


def below(limit: int, hashes: Hashes) -> Numbers:
    """A number in `0..limit-1` for each hash, for limits up to 2**32."""
    return (((hashes >> 32) * limit) >> 32).astype(np.int64)


def _moved(digit: Hashes, by: Hashes, base: int) -> Hashes:
    """`(digit + by) % base`, where `by` stands for an even draw."""
    moved = digit + (((by >> 32) * base) >> 32)
    inside: NDArray[np.uint64] = np.minimum(moved, moved - base)  # below 0 it wraps around
    return inside


def _mix(x: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    mixed: NDArray[np.uint64] = x ^ (x >> 31)
    return mixed


@lru_cache(maxsize=256)
def _start(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def spread(count: int, limit: int | None) -> list[int]:
    """Numbers below `count`: all, or `limit` of them at even distances.

    >>> spread(10, 4), spread(3, 4)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    if limit is None or limit >= count:
        return list(range(count))
    return sorted({int(each) for each in np.linspace(0, count - 1, limit)})
