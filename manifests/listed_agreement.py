"""Agreement of labels that are no maps: boxes, texts, structures, tokens."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label

IOU = 0.5

_Place: TypeAlias = tuple[str | int, ...]


def match_boxes(one: Label, other: Label) -> Int64[np.ndarray, "3"]:
    """How many pairs, boxes of one and boxes of the other there are.

    A pair has one class name and an intersection over union of at least `IOU`; of all ways to pair
    boxes, one with the most pairs.
    """
    ours, theirs = _instances(one), _instances(other)
    fits = [
        [a["class_name"] == b["class_name"] and iou(a["boxes"], b["boxes"]) >= IOU for b in theirs]
        for a in ours
    ]
    return np.array([most_pairs(fits), len(ours), len(theirs)], np.int64)


def matched(counts: Int64[np.ndarray, "3"]) -> dict[str, float]:
    """`f1` of matched boxes, the share of either side's that are `matched_before` and `_after`."""
    pairs, ours, theirs = map(int, counts)
    return {
        "f1": 2 * pairs / (ours + theirs) if ours + theirs else 1.0,
        "matched_before": pairs / ours if ours else float("nan"),
        "matched_after": pairs / theirs if theirs else float("nan"),
    }


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes `[x0, y0, x1, y1]`.

    >>> iou([0, 0, 1, 1], [0.5, 0, 1, 1])
    0.5
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - shared
    return shared / union if union else float(list(one) == list(other))


def most_pairs(fits: Sequence[Sequence[bool]]) -> int:
    """The most pairs of rows and columns that fit, where each is in one pair at most."""
    partner: dict[int, int] = {}  # of a column

    def place(row: int, tried: set[int]) -> bool:
        for column, is_fitting in enumerate(fits[row]):
            if is_fitting and column not in tried:
                tried.add(column)
                if column not in partner or place(partner[column], tried):
                    partner[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(fits)))


def texts(one: Label, other: Label) -> dict[str, float]:
    """`exact`: the same text; `word_overlap`: F1 of the words, in any order and letter case."""
    assert isinstance(one, str)
    assert isinstance(other, str)
    ours, theirs = (Counter(each.lower().split()) for each in (one, other))
    shared, total = (ours & theirs).total(), ours.total() + theirs.total()
    return {"exact": float(one == other), "word_overlap": 2 * shared / total if total else 1.0}


def structures(one: Label, other: Label) -> dict[str, float]:
    """`equal_share`: values that are equal, among all that either has; `exact`: all of them."""
    ours, theirs = dict(_leaves(one, ())), dict(_leaves(other, ()))
    places = ours.keys() | theirs.keys()
    equal = sum(
        place in ours and place in theirs and ours[place] == theirs[place] for place in places
    )
    share = equal / len(places) if places else float(one == other)
    return {"equal_share": share, "exact": float(one == other)}


def numbers(one: NDArray[Any], other: NDArray[Any]) -> dict[str, float]:
    """`equal_share` of tokens or crop settings.

    Raises:
        ConfigError: not as many on both sides.
    """
    if one.shape != other.shape:
        raise ConfigError(
            f"{list(one.shape)} and {list(other.shape)} tokens of a sample cannot be compared"
        )
    return {"equal_share": float((one == other).mean())}


def _instances(label: Label) -> Sequence[Mapping[str, Any]]:
    assert isinstance(label, dict)
    return list(label["instances"])


def _leaves(value: Any, place: _Place) -> Iterator[tuple[_Place, Any]]:
    if isinstance(value, dict):
        inner: Any = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        yield place, value
        return
    for key, each in inner:
        yield from _leaves(each, (*place, key))
