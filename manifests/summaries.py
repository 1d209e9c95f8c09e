"""What many labels say together: counts by which a broken expert is told from a good one.

All numbers count labels, places or values, so that summaries add up: those of blocks to the same
summary of a shard, and those of shards to the version's, whatever their sizes and their order. Of
what is dense or long some four thousand values, spread evenly, stand for all.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.labels import Encoding, Label
from fourmill.manifests.modalities import Kind, Masking, Modality

Summary: TypeAlias = dict[str, Any]
"""By name, of `labels` that are good:

- `values`, `not_finite`: numbers in all arrays, refused ones included; those that are NaN or
  infinite, for which a label is refused.
- `constant`: labels that are one value throughout. `empty`: without a box, a word, an entry.
- `histogram`: values by bin, see `bin_ranges`; of normals the three components one after another.
- `counts`: labels by how many boxes, words, instances or entries they have, in powers of two.
- `scores`: of boxes and entries, in twentieths.
- `classes`: places, boxes or entries of each class; the `_MOST["classes"]` whose names have the
  smallest hashes, which are counted in full.
- `distinct`: how often a label with this hash occurs, for the smallest hashes.
- `used`: which of some thousand ids, spread evenly, occur among tokens: bits, in hexadecimal.
- `decoded`: of tokens, how many labels were decoded again, and the sum of how far they were from
  what was tokenized, in millionths (`tokenize/verify.py`).
"""

SCORE_BINS = 20
COUNT_BINS = 16
_RELATIVE = Encoding()
_DEPTH_BINS = 32
_PLANE_BINS = 32
_BYTE_BINS = 16
_TOKEN_BINS = 32
_SMALLEST, _LARGEST = -10, 6  # powers of two that the sizes of features are told apart by
_SIDE = 64  # places along a side that stand for a whole map
_VALUES = _SIDE**2
_IDS = 1024
_MOST = {"classes": 256, "distinct": 16}
_ROWS = frozenset({Kind.TOKENS, Kind.CROPS})  # that are summarised many at once


def summarise(
    definition: Modality,
    labels: Sequence[Label],
    refused: Sequence[object] = (),
    encoding: Encoding = _RELATIVE,
) -> Summary:
    """The summary of good labels of a modality.

    Args:
        refused: what was made and is no label of it; counted where it holds what is not finite.
        encoding: the histogram of depth spans what this one can hold.
    """
    none: Summary = {"labels": 0, "values": 0, "not_finite": 0}
    good = (_one(definition, each, encoding) for each in labels)
    return merge([none, *map(_refused, refused), *good])


def summarise_rows(definition: Modality, rows: NDArray[Any]) -> Summary:
    """The same of good tokens or crop settings `[labels, ...]`, all at once."""
    count = len(rows)
    summary: Summary = {"labels": count, "values": rows.size, "not_finite": 0}
    if not count:
        return summary
    distinct: dict[str, int] = {}
    for each in _row_hashes(rows):
        distinct[each] = distinct.get(each, 0) + 1
    summary["distinct"] = _smallest(distinct, _MOST["distinct"])
    return summary | _ARRAYS[definition.kind](definition, rows, _RELATIVE)


def merge(summaries: Iterable[Mapping[str, Any]]) -> Summary:
    """The summary of all labels together; exact, in any order and any grouping."""
    total: Summary = {}
    for each in summaries:
        for name, value in each.items():
            total[name] = _sum(total[name], value) if name in total else value
    for name in _MOST.keys() & total.keys():
        total[name] = _smallest(total[name], _MOST[name])
    return total


def bin_ranges(definition: Modality, encoding: Encoding) -> tuple[str, str]:
    """Where the first and the last bin of a histogram end, in words."""
    match definition.kind:
        case Kind.DEPTH:
            return f"{encoding.offset:g}", f"{encoding.offset + 65535 * encoding.scale:g}"
        case Kind.PLANE:
            assert definition.value_range is not None
            low, high = (f"{each:g}" for each in definition.value_range)
            return low, high
        case Kind.FEATURE_MAP | Kind.VECTOR | Kind.SEQUENCE:
            return f"-{2**_LARGEST}", f"{2**_LARGEST}"
        case Kind.NORMAL:
            return "-1", "1"
        case Kind.TOKENS:
            return "0", str(definition.vocab_size - 1)
        case _:
            return "0", "255"


def used_share(summary: Mapping[str, Any], definition: Modality) -> float:
    """Share of the vocabulary that occurs among tokens, judged by every n-th id."""
    watched = -(-definition.vocab_size // _id_step(definition.vocab_size))
    return int(summary["used"], 16).bit_count() / watched


def _sum(one: Any, other: Any) -> Any:
    match one:
        case int():
            return one + other
        case list():
            return [a + b for a, b in zip(one, other, strict=True)]
        case str():
            return f"{int(one, 16) | int(other, 16):0{len(one)}x}"
        case _:
            return one | {key: one.get(key, 0) + count for key, count in other.items()}


def _smallest(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """The entries whose keys have the smallest hashes.

    A key among the smallest of all is among the smallest of every part, so its count is exact.
    """
    if len(counts) <= most:
        return dict(sorted(counts.items()))
    chosen = islice(sorted(counts, key=_place), most)
    return {key: counts[key] for key in sorted(chosen)}


@lru_cache(maxsize=2**14)
def _place(key: str) -> str:
    """What keys are ordered by; those of a block are asked for again where blocks are merged."""
    return _hash(key.encode())


def _refused(value: object) -> Summary:
    if not (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        return {}
    return {"values": value.size, "not_finite": int((~np.isfinite(value)).sum())}


def _one(definition: Modality, label: Label, encoding: Encoding) -> Summary:
    summary: Summary = {"labels": 1}
    if isinstance(label, np.ndarray):
        if definition.kind in _ROWS:
            return summarise_rows(definition, label[None])
        sampled = _sampled(definition, label)
        summary |= {"values": label.size, "distinct": {_hash(sampled.tobytes()): 1}}
        return summary | _ARRAYS[definition.kind](definition, sampled, encoding)
    if isinstance(label, str):
        words = len(label.split())
        return summary | _content(label.encode(), words)
    written = json.dumps(label, sort_keys=True).encode()
    entries: Any = label
    if isinstance(label, dict):
        entries = label.get("instances", label.get("annotations"))
    if not isinstance(entries, list):
        return summary | _content(written, len(label)) | _entries([label])
    return summary | _content(written, len(entries)) | _entries(entries)


def _content(written: bytes, count: int) -> Summary:
    return {
        "distinct": {_hash(written): 1},
        "empty": int(count == 0),
        "counts": _in_bin(count.bit_length(), COUNT_BINS),
    }


def _entries(entries: Sequence[Any]) -> Summary:
    """Classes and scores, where the entries of a list have them."""
    classes: dict[str, int] = {}
    scores = [0] * SCORE_BINS
    for each in entries:
        if isinstance(each, dict) and isinstance(each.get("class_name"), str):
            classes[each["class_name"]] = classes.get(each["class_name"], 0) + 1
        if isinstance(each, dict) and isinstance(each.get("score"), (int, float)):
            scores[max(0, min(int(each["score"] * SCORE_BINS), SCORE_BINS - 1))] += 1
    return ({"classes": classes} if classes else {}) | ({"scores": scores} if any(scores) else {})


def _depth(definition: Modality, depth: NDArray[Any], encoding: Encoding) -> Summary:
    share = (depth.astype(np.float64) - encoding.offset) / (65536 * encoding.scale)
    bins = np.clip((share * _DEPTH_BINS).astype(np.int64), 0, _DEPTH_BINS - 1)
    return _constant(depth) | {"histogram": _histogram(bins, _DEPTH_BINS)}


def _plane(definition: Modality, numbers: NDArray[Any], encoding: Encoding) -> Summary:
    assert definition.value_range is not None
    low, high = definition.value_range
    share = (numbers.astype(np.float64) - low) / (high - low)
    bins = np.clip((share * _PLANE_BINS).astype(np.int64), 0, _PLANE_BINS - 1)
    return _constant(numbers) | {"histogram": _histogram(bins, _PLANE_BINS)}


def _bytes(definition: Modality, plane: NDArray[Any], encoding: Encoding) -> Summary:
    return _constant(plane) | {"histogram": _histogram(plane // _BYTE_BINS, _BYTE_BINS)}


def _normal(definition: Modality, normals: NDArray[Any], encoding: Encoding) -> Summary:
    parts = (_histogram(normals[..., axis] // _BYTE_BINS, _BYTE_BINS) for axis in range(3))
    is_constant = int((normals == normals[:1, :1]).all())
    return {"constant": is_constant, "histogram": [count for part in parts for count in part]}


def _classes(definition: Modality, index: NDArray[Any], encoding: Encoding) -> Summary:
    numbers, places = np.unique(index, return_counts=True)
    named = {
        _class_name(definition, number): count
        for number, count in zip(numbers.tolist(), places.tolist(), strict=True)
    }
    return _constant(index) | {"classes": named}


def _class_name(definition: Modality, number: int) -> str:
    if number == UNKNOWN_CLASS:
        return "unknown"
    return definition.classes[number] if definition.classes else str(number)


def _instances(definition: Modality, index: NDArray[Any], encoding: Encoding) -> Summary:
    found = int(np.count_nonzero(np.unique(index)))
    return {"empty": int(not found), "counts": _in_bin(found.bit_length(), COUNT_BINS)}


def _features(definition: Modality, values: NDArray[Any], encoding: Encoding) -> Summary:
    """By sign and power of two: from large negative over zero to large positive ones."""
    numbers = values.astype(np.float32)
    sizes = np.clip(np.frexp(numbers)[1] - 1, _SMALLEST, _LARGEST) - _SMALLEST + 1
    signed = np.sign(numbers).astype(np.int64) * sizes
    half = _LARGEST - _SMALLEST + 1
    return _constant(values) | {"histogram": _histogram(signed + half, 2 * half + 1)}


def _tokens(definition: Modality, rows: NDArray[Any], encoding: Encoding) -> Summary:
    """Of many labels' ids."""
    summary: Summary = {}
    if definition.masking is not Masking.IMAGE:
        lengths = np.count_nonzero(rows.reshape(len(rows), -1), axis=1)
        bits = np.minimum(np.frexp(lengths.astype(np.float64))[1], COUNT_BINS - 1)
        summary = {
            "empty": int((lengths == 0).sum()), "counts": _histogram(bits, COUNT_BINS),
        }  # fmt: skip
    if not definition.vocab_size:
        return summary
    occurring = np.bincount(rows.ravel(), minlength=definition.vocab_size)
    step = _id_step(definition.vocab_size)
    used = np.zeros(_IDS, np.uint8)
    watched = occurring[::step] > 0
    used[: len(watched)] = watched
    bins = np.arange(definition.vocab_size) * _TOKEN_BINS // definition.vocab_size
    histogram = np.bincount(bins, occurring, _TOKEN_BINS).astype(np.int64).tolist()
    return summary | {"used": np.packbits(used).tobytes().hex(), "histogram": histogram}


def _crops(definition: Modality, crops: NDArray[Any], encoding: Encoding) -> Summary:
    return {}


_ARRAYS: dict[Kind, Callable[[Modality, NDArray[Any], Encoding], Summary]] = {
    Kind.IMAGE: _bytes,
    Kind.DEPTH: _depth,
    Kind.NORMAL: _normal,
    Kind.EDGE: _bytes,
    Kind.PLANE: _plane,
    Kind.CLASSES: _classes,
    Kind.INSTANCES: _instances,
    Kind.FEATURE_MAP: _features,
    Kind.VECTOR: _features,
    Kind.SEQUENCE: _features,
    Kind.TOKENS: _tokens,
    Kind.CROPS: _crops,
}


def _sampled(definition: Modality, label: NDArray[Any]) -> NDArray[Any]:
    """Some four thousand values, spread evenly."""
    if definition.kind in (Kind.FEATURE_MAP, Kind.VECTOR, Kind.SEQUENCE):
        # an odd step meets every channel and every place, whatever the sides of the map
        return label.ravel()[:: label.size // _VALUES | 1]
    rows, columns = (-(-side // _SIDE) for side in label.shape[:2])
    return label[::rows, ::columns]


def _constant(values: NDArray[Any]) -> Summary:
    return {"constant": int(values.min() == values.max())}


def _histogram(bins: NDArray[Any], count: int) -> list[int]:
    return [int(each) for each in np.bincount(bins.ravel(), minlength=count)]


def _in_bin(number: int, bins: int) -> list[int]:
    return [int(number == each) for each in range(bins - 1)] + [int(number >= bins - 1)]


def _id_step(vocab_size: int) -> int:
    return -(-vocab_size // _IDS)


def _row_hashes(rows: NDArray[Any]) -> list[str]:
    """48 bits of each row: equal ones have the same, others most likely not.

    A sum of words times odd numbers, all rows at once; not for what somebody may forge.
    """
    data = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).reshape(len(rows), -1)
    words = data.view(np.uint8)
    if words.shape[1] % 8:
        words = np.pad(words, ((0, 0), (0, -words.shape[1] % 8)))
    numbers = words.view("<u8")
    sums = (numbers * _odd_numbers(numbers.shape[1])).sum(axis=1, dtype=np.uint64)
    mixed = (sums ^ (sums >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return [f"{each:012x}" for each in (mixed >> np.uint64(16)).tolist()]


@lru_cache(maxsize=16)
def _odd_numbers(count: int) -> NDArray[np.uint64]:
    """As if drawn: SplitMix64 (Steele et al. 2014) of 1, 2, …, made odd."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) | np.uint64(1)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=6).hexdigest()
