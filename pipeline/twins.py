"""Near duplicates: a perceptual hash of 64 bits, and which pictures of many have almost the same.

The hash is a difference hash in integers, so that it is the same on every machine; the first of
each group of near duplicates stays, in the order that is asked, so that workers do not matter.
"""

import itertools

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

_ROWS, _COLUMNS = 8, 9
_LUMA = np.array([299, 587, 114], np.int64)


def fingerprint(rgb: UInt8[np.ndarray, "height width 3"]) -> int:
    """64 bits that say for 8 x 8 places whether it gets brighter to the right.

    Pictures that were scaled or compressed again differ in few bits.
    """
    grey = rgb.astype(np.int64) @ _LUMA
    sums = np.zeros((grey.shape[0] + 1, grey.shape[1] + 1), np.int64)
    sums[1:, 1:] = grey.cumsum(0).cumsum(1)
    rows, columns = (_edges(*each) for each in ((grey.shape[0], _ROWS), (grey.shape[1], _COLUMNS)))
    boxes = (
        sums[np.ix_(rows[:, 1], columns[:, 1])] - sums[np.ix_(rows[:, 0], columns[:, 1])]
        - sums[np.ix_(rows[:, 1], columns[:, 0])] + sums[np.ix_(rows[:, 0], columns[:, 0])]
    )  # fmt: skip
    areas = np.outer(rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0])
    means = boxes // areas
    bits = (means[:, 1:] > means[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _edges(length: int, parts: int) -> Int64[np.ndarray, "parts 2"]:
    """Beginning and end of each part; of one pixel at least, so that small pictures have all."""
    starts = np.arange(parts) * length // parts
    ends = np.maximum(-(-np.arange(1, parts + 1) * length // parts), starts + 1)
    return np.stack([starts, ends], axis=1).astype(np.int64)


def near_duplicates(hashes: UInt64[np.ndarray, " pictures"], most: int) -> dict[int, int]:
    """Pictures to leave out, each with the earlier one that it almost equals and that stays.

    Args:
        most: bits that may differ.
    """
    unique, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first.astype(np.int64)
    kept_for = np.arange(len(unique))
    dropped = np.zeros(len(unique), bool)
    for one, other in _close_pairs(unique, firsts, most):  # `other` comes later
        if not dropped[one] and not dropped[other]:
            dropped[other] = True
            kept_for[other] = one
    keeper = firsts[kept_for[group]]
    return {
        int(place): int(keeper[place]) for place in np.flatnonzero(keeper != np.arange(len(hashes)))
    }


def _close_pairs(
    unique: UInt64[np.ndarray, " hashes"], firsts: Int64[np.ndarray, " hashes"], most: int
) -> list[tuple[int, int]]:
    """Pairs of hashes that differ in 1 to `most` bits, by the later and then the earlier.

    Of twice as many bands of bits, at least `most` are equal in both. So for every choice of that
    many bands, which are 32 bits, only hashes that agree in all of them are compared.
    """
    pairs: set[tuple[int, int]] = set()
    for bands in itertools.combinations(_bands(2 * most), most) if most else ():
        key = unique & np.uint64(sum(bands))
        order = np.argsort(key, kind="stable")
        sorted_key = key[order]
        for lag in range(1, len(order)):
            same = np.flatnonzero(sorted_key[lag:] == sorted_key[:-lag])
            if not len(same):
                break
            one, other = order[same], order[same + lag]
            close = _count_bits(unique[one] ^ unique[other]) <= most
            pairs.update(zip(one[close].tolist(), other[close].tolist(), strict=True))
    ordered = [(a, b) if firsts[a] < firsts[b] else (b, a) for a, b in pairs]
    return sorted(ordered, key=lambda each: (firsts[each[1]], firsts[each[0]]))


def _bands(count: int) -> list[int]:
    """64 bits in so many parts, as masks."""
    bounds = [64 * each // count for each in range(count + 1)]
    return [(1 << end) - (1 << start) for start, end in itertools.pairwise(bounds)]


def _count_bits(values: UInt64[np.ndarray, " values"]) -> Int64[np.ndarray, " values"]:
    bits = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(bits.sum(axis=1, dtype=np.int64))
