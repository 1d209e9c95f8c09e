"""Instances as words: points of a crop, and the outline of what lies at each.

For each point `point v0=<row> v1=<column>`, then `none`, or for each mask that it lies in
`polygon v0=<left> v1=<top> v2=<right> v3=<bottom>` and the 16 codes of the mask in that box. All of
it in pixels of the crop. 4M-21 was trained on it as `sam_instance`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.run_lengths import RunLengths, is_masks, masks_label, read_masks
from fourmill.tokenize.base import CropSettings, token_dtype
from fourmill.tokenize.coded import (
    CodedTokenizer,
    Item,
    phrases,
    read_bins,
    read_codes,
    spell_codes,
)
from fourmill.tokenize.crops import crop_dense
from fourmill.tokenize.draws import shuffled, uniforms
from fourmill.tokenize.masks import Box, MaskTokenizer, box_of, cut_mask, paint_mask
from fourmill.tokenize.vocabulary import NUM_BINS, Vocabulary, number

_CODES = 16
_POINT, _POLYGON, _NONE = "point", "polygon", "none"
_LEAST_AREA = 5e-4  # of a box, as a share of the crop; the reference's


Point = tuple[int, int]
"""(row, column) in pixels of a crop."""


@dataclass(frozen=True)
class _Query:
    """A point, and which of the crops' masks it lies in."""

    row: int
    column: int
    masks: tuple[int, ...]


class SamInstancesTokenizer(CodedTokenizer):
    """`sam_instance`, or `instances`, ↔ `tok_sam_instance`, of each crop.

    `sam_instance` has every mask whole, so that a point may lie in several; they are written in an
    order that the key draws. `instances` has the number of the instance at every pixel, 0 where
    there is none, so a point has one polygon at most. Points are drawn by the sample's key and the
    crop; where a box is smaller than 0.05 % of the crop there is none. As many points and polygons
    are written as fit, whole.

    Decoded, it is what the points hit, in the size of the crop: masks of `sam_instance`, or a plane
    of `instances`.

    Args:
        codec: of masks, `EPFL-VILAB/4M_tokenizers_sam-instance_1k_64` or one like it.
        size: side of the crop in pixels, what coordinates count.
        points: in each crop.
        definition: of `sam_instance`, or its record; `instances` by default.

    Raises:
        ConfigError: no codec, another one, or a size that there are no numbers for.
    """

    kind = "instances"
    reads = "instances"
    tokens = "sam_instance"
    per_crop = True
    words = (_POINT, _POLYGON, _NONE)
    codes = _CODES
    codec_class = MaskTokenizer

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_tokens: int,
        codec: MaskTokenizer | None = None,
        size: int = 224,
        points: int = 7,
        definition: Modality | Mapping[str, Any] | None = None,
    ) -> None:
        if codec is None:
            raise ConfigError(
                "sam_instance: its words spell codes of masks; give it a tokenizer of masks as "
                "codec, such as EPFL-VILAB/4M_tokenizers_sam-instance_1k_64"
            )
        if not 1 <= size < NUM_BINS or points < 1:
            raise ConfigError(
                f"sam_instance: found {points} points in crops of {size} pixels, expected at least "
                f"one, and 1 to {NUM_BINS - 1} pixels"
            )
        super().__init__(
            vocabulary, max_tokens, codec, definition=definition, size=size, points=points
        )
        self._codec = codec
        self.size = size
        self.points = points

    @property
    def codec(self) -> MaskTokenizer:
        """The tokenizer of masks."""
        return self._codec

    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """`[B, crops, tokens]`; see `Tokenizer`."""
        rows = []
        for label, settings, size, key in zip(labels, crops, image_sizes, keys, strict=True):
            check_label(self.stored, label)
            rows += self._sentences(label, settings, size, key)
        dtype = token_dtype(self.spec.vocab_size)
        padded = np.array([self._pad(each) for each in rows], dtype=dtype)
        return padded.reshape(len(labels), -1, self.spec.max_tokens)

    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of the points and of what lies there."""
        row = np.array([0, 0, *image_size, 0]) if crop is None else crop
        return self._sentences(label, row[None], image_size, key)[0]

    def decode(self, ids: list[int]) -> Label:
        """Masks, or numbers from 1; the largest box first, so that of two the smaller is seen."""
        found = [self._read_polygon(each) for each in phrases(self.items(ids), _POLYGON)]
        # two points of one instance say the same of it
        polygons = sorted({each for each in found if each is not None}, key=_by_area)
        plane = np.zeros((self.size, self.size), np.uint16)
        masks = []
        if polygons:
            likely = self.codec.decode(np.array([codes for _, codes in polygons], np.int64))
            for value, ((box, _), mask) in enumerate(zip(polygons, likely, strict=True), 1):
                paint_mask(plane, mask, box, value)
                if self._has_masks:
                    alone = np.zeros_like(plane)
                    paint_mask(alone, mask, box, 1)
                    masks.append(alone > 0)
        return masks_label(masks) if self._has_masks else plane

    @property
    def _has_masks(self) -> bool:
        return is_masks(self.stored)

    def _sentences(
        self, label: Any, crops: CropSettings, image_size: tuple[int, int], key: str
    ) -> list[list[int]]:
        every = read_masks(label) if self._has_masks else None
        queries: list[list[_Query]] = []
        boxes: list[Box] = []
        masks: list[Bool[np.ndarray, "S S"]] = []
        for crop in crops:
            points = self._points(key, crop.tolist())
            if every is None:
                (plane,) = crop_dense(label, Kind.INSTANCES, crop[None], image_size, self.size)
                shown = [plane == value for value in _values_at(plane, points)]
            else:
                shown = self._masks_at(every, points, crop, image_size)
            known: list[tuple[int, Bool[np.ndarray, "S S"]]] = []
            for mask in shown:
                box = box_of(mask)
                if self._is_large(box):
                    known.append((len(boxes), mask))
                    boxes.append(box)
                    masks.append(cut_mask(mask, box, self.codec.side))
            queries.append(
                [_Query(*each, tuple(n for n, mask in known if mask[each])) for each in points]
            )
        codes = self.codec.encode(np.stack(masks)) if masks else np.zeros((0, _CODES), np.int64)
        return [self._spell(each, boxes, codes, key) for each in queries]

    def _masks_at(
        self,
        masks: Sequence[RunLengths],
        points: Sequence[Point],
        crop: NDArray[np.int64],
        image_size: tuple[int, int],
    ) -> list[Bool[np.ndarray, "S S"]]:
        """Those that the points lie in, as the crop shows them; the others are never painted."""
        top, left, height, width, flip = crop.tolist()
        rows, columns = (np.array(points).T + 0.5) / self.size
        down = top + rows * height
        right = left + (1 - columns if flip else columns) * width
        found = []
        for each in masks:
            scale_y, scale_x = each.size[0] / image_size[0], each.size[1] / image_size[1]
            places = (down * scale_y).astype(np.int64), (right * scale_x).astype(np.int64)
            if each.holds(*places).any():
                whole = each.mask().astype(np.uint8)
                (cut,) = crop_dense(whole, Kind.INSTANCES, crop[None], image_size, self.size)
                if cut.any():
                    found.append(cut > 0)
        return found

    def _points(self, key: str, crop: Sequence[int]) -> list[Point]:
        draws = uniforms(2 * self.points, "points", key, *crop)
        places = [int(each * self.size) for each in draws]
        # a point that is drawn twice is one
        return list(dict.fromkeys(zip(places[::2], places[1::2], strict=True)))

    def _is_large(self, box: Box) -> bool:
        left, top, right, bottom = box
        return (right - left) * (bottom - top) >= _LEAST_AREA * self.size**2

    def _spell(
        self,
        queries: Sequence[_Query],
        boxes: Sequence[Box],
        codes: Int64[np.ndarray, "M N"],
        key: str,
    ) -> list[int]:
        ids: list[int] = []
        room = self.spec.max_tokens - 1
        for each in queries:
            start = [*self.word(_POINT), number(0, each.row), number(1, each.column)]
            polygons = [
                self._spell_polygon(boxes[index], codes[index])
                for index in shuffled(each.masks, "polygons", key, each.row, each.column)
            ] or [self.word(_NONE)]
            if len(ids) + len(start) + len(polygons[0]) > room:
                break
            ids += start
            for polygon in polygons:
                if len(ids) + len(polygon) > room:
                    return ids
                ids += polygon
        return ids

    def _spell_polygon(self, box: Box, codes: Int64[np.ndarray, " N"]) -> list[int]:
        corners = [number(axis, bin) for axis, bin in enumerate(box)]
        return [*self.word(_POLYGON), *corners, *spell_codes(codes.tolist())]

    def _read_polygon(self, items: Sequence[Item]) -> tuple[Box, tuple[int, ...]] | None:
        corners, codes = read_bins(items, (0, 1, 2, 3)), read_codes(items[4:], _CODES)
        if corners is None or codes is None or max(codes) >= self.codec.spec.vocab_size:
            return None
        left, top, right, bottom = corners
        is_shown = left < min(right, self.size) and top < min(bottom, self.size)
        return ((left, top, right, bottom), codes) if is_shown else None


def _values_at(plane: NDArray[np.uint16], points: Sequence[Point]) -> list[int]:
    """The instances that points lie in, each once."""
    return [each for each in dict.fromkeys(int(plane[point]) for point in points) if each]


def _by_area(polygon: tuple[Box, tuple[int, ...]]) -> tuple[int, Box, tuple[int, ...]]:
    (left, top, right, bottom), codes = polygon
    return -(right - left) * (bottom - top), (left, top, right, bottom), codes
