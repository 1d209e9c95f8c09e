"""Random draws that depend on names alone: the same on any worker, in any batch, in any order."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

_PER_DIGEST = 8  # numbers of 64 bits in one digest


def uniforms(count: int, *names: str | int) -> list[float]:
    """`count` numbers in [0, 1), drawn from the names alone.

    >>> uniforms(2, "a key", 0) == uniforms(3, "a key", 0)[:2]
    True
    """
    numbers: list[float] = []
    for block in range(-(-count // _PER_DIGEST)):
        text = "\0".join([*map(str, names), str(block)])
        digest = hashlib.blake2b(text.encode(), digest_size=8 * _PER_DIGEST).digest()
        numbers += [
            (int.from_bytes(digest[start : start + 8], "big") >> 11) / 2**53
            for start in range(0, len(digest), 8)
        ]
    return numbers[:count]


def shuffled(items: Sequence[Item], *names: str | int) -> list[Item]:
    """The items in an order that is drawn from the names."""
    weights = uniforms(len(items), *names)
    return [items[index] for index in sorted(range(len(items)), key=weights.__getitem__)]
