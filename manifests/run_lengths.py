"""Masks as run lengths: those of SA-1B and COCO, so that overlapping masks are small JSON.

Runs are counted column by column, first of what is outside, then inside, and so on. As text each
count is five bits a character, the lowest first, and from the fourth on a count is written as its
difference from the one two before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt16
from numpy.typing import NDArray

from fourmill.manifests.modalities import Modality

_FIRST = 48  # the character of 0
_BITS, _SIGN, _MORE = 5, 16, 32
_MOST_PARTS = 7  # characters of a count: more than any picture needs
_MOST_PIXELS = 100_000_000


class RunLengths:
    """One mask, whose pixels can be asked for without painting it.

    Args:
        size: (height, width) in pixels.
        ends: of the runs, as places counted column by column; odd runs are inside.
    """

    def __init__(self, size: tuple[int, int], ends: Int64[np.ndarray, " runs"]) -> None:
        self.size = size
        self._ends = ends

    @staticmethod
    def of(mask: Bool[np.ndarray, "H W"]) -> "RunLengths":
        """The run lengths of a mask."""
        flat = mask.ravel(order="F")
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        first = [0] if flat.size and flat[0] else []
        ends = np.concatenate([first, changes, [flat.size]]).astype(np.int64)
        return RunLengths((mask.shape[0], mask.shape[1]), ends)

    @staticmethod
    def read(segmentation: object) -> "RunLengths":
        """What a label says, `{"size": [height, width], "counts": "…"}`.

        Raises:
            ValueError: anything else, or counts that do not add up to the size.
        """
        size = segmentation.get("size") if isinstance(segmentation, Mapping) else None
        counts = segmentation.get("counts") if isinstance(segmentation, Mapping) else None
        if (
            not isinstance(size, list)
            or [type(each) for each in size] != [int, int]
            or min(size) < 1
            or size[0] * size[1] > _MOST_PIXELS
            or not isinstance(counts, str)
        ):
            text = repr(segmentation)
            shown = text if len(text) <= 80 else f"{text[:77]}…"
            raise ValueError(
                f'segmentation is {shown}, expected {{"size": [height, width], "counts": text}} '
                f"of at most {_MOST_PIXELS:,} pixels"
            )
        lengths = _read_counts(counts)
        if lengths is None or lengths.min() < 0 or lengths.sum() != size[0] * size[1]:
            raise ValueError(
                f"counts {counts[:40]!r} are no run lengths of {size[0]}x{size[1]} pixels"
            )
        return RunLengths((size[0], size[1]), np.cumsum(lengths))

    def record(self) -> dict[str, Any]:
        """What `read` reads."""
        return {"size": list(self.size), "counts": _write_counts(self._lengths.tolist())}

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(self._lengths[1::2].sum())

    def holds(
        self, rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]
    ) -> NDArray[np.bool_]:
        """Whether pixels of the mask's own size are inside."""
        runs = np.searchsorted(self._ends, columns * self.size[0] + rows, side="right")
        inside: NDArray[np.bool_] = runs % 2 == 1
        return inside

    def mask(self) -> Bool[np.ndarray, "H W"]:
        """The mask, painted."""
        values = np.arange(len(self._ends)) % 2 == 1
        return np.repeat(values, self._lengths).reshape(self.size, order="F")

    @property
    def _lengths(self) -> Int64[np.ndarray, " runs"]:
        lengths: NDArray[np.int64] = np.diff(self._ends, prepend=0)
        return lengths


def masks_label(masks: Sequence[Bool[np.ndarray, "H W"]]) -> dict[str, Any]:
    """Masks that may overlap as a label of `sam_instance`."""
    return {"annotations": [{"segmentation": RunLengths.of(each).record()} for each in masks]}


def is_masks(modality: Modality) -> bool:
    """Whether labels of a modality are such."""
    return modality.name == "sam_instance"


def read_masks(label: object) -> list[RunLengths]:
    """The masks of a label of `sam_instance`, in its order; whatever else it says is passed over.

    Raises:
        ValueError: no such label.
    """
    found = label.get("annotations", []) if isinstance(label, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise ValueError('expected {"annotations": [{"segmentation": …}, …]}')
    masks = [RunLengths.read(each.get("segmentation")) for each in found]
    sizes = {each.size for each in masks}
    if len(sizes) > 1:
        raise ValueError(f"found masks of the sizes {sorted(sizes)}, expected one size")
    return masks


def paint_masks(
    masks: Sequence[Bool[np.ndarray, "H W"]], size: tuple[int, int]
) -> UInt16[np.ndarray, "H W"]:
    """Masks over each other, the smallest last: 1, 2, … by size, 0 where none is."""
    plane = np.zeros(size, np.uint16)
    for number, mask in enumerate(sorted(masks, key=lambda each: -int(each.sum())), 1):
        plane[mask] = number
    return plane


def _write_counts(lengths: Sequence[int]) -> str:
    text = bytearray()
    for index, length in enumerate(lengths):
        left = length - lengths[index - 2] if index > 2 else length
        while True:
            part = left & (_MORE - 1)
            left >>= _BITS
            is_last = left == (-1 if part & _SIGN else 0)
            text.append(_FIRST + part + (0 if is_last else _MORE))
            if is_last:
                break
    return text.decode("ascii")


def _read_counts(text: str) -> Int64[np.ndarray, " runs"] | None:
    """The run lengths that text stands for, or `None` for text that stands for none."""
    if not text or not text.isascii():
        return None
    parts = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    ends = np.flatnonzero(parts < _MORE)
    if parts.min() < 0 or parts.max() >= 2 * _MORE or not ends.size or ends[-1] != parts.size - 1:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts + 1
    if widths.max() > _MOST_PARTS:
        return None
    shifts = _BITS * (np.arange(parts.size) - np.repeat(starts, widths))
    values = np.add.reduceat((parts & (_MORE - 1)) << shifts, starts)
    values -= np.where(parts[ends] & _SIGN, 1 << (_BITS * widths), 0)
    lengths = values.copy()
    for first in (1, 2):
        lengths[first::2] = np.cumsum(values[first::2])
    return lengths
