"""Instances as words: points of a crop, and the outline of what lies at each.

For each point `point v0=<row> v1=<column>`, then `none`, or
`polygon v0=<left> v1=<top> v2=<right> v3=<bottom>` and the 16 codes of the mask in that box. All of
it in pixels of the crop. 4M-21 was trained on it as `sam_instance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt16
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind
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
from fourmill.tokenize.draws import uniforms
from fourmill.tokenize.masks import Box, MaskTokenizer, box_of, cut_mask, paint_mask
from fourmill.tokenize.vocabulary import NUM_BINS, Vocabulary, number

_CODES = 16
_POINT, _POLYGON, _NONE = "point", "polygon", "none"
_LEAST_AREA = 5e-4  # of a box, as a share of the crop; the reference's


@dataclass(frozen=True)
class _Query:
    """A point, and which of the crop's masks lies there, if any."""

    row: int
    column: int
    mask: int | None


class SamInstancesTokenizer(CodedTokenizer):
    """`instances` ↔ `tok_sam_instance`, of each crop.

    A label is the number of the instance at every pixel, 0 where there is none, as the experts
    write it: where masks overlapped, the smaller one is seen, so a point has one polygon at most
    (the reference has one for each mask). Points are drawn by the sample's key and the crop; where
    a box is smaller than 0.05 % of the crop there is none. As many points are written as fit,
    whole.

    Decoded, it is a plane of the instances that the points hit, in the size of the crop.

    Args:
        codec: of masks, `EPFL-VILAB/4M_tokenizers_sam-instance_1k_64` or one like it.
        size: side of the crop in pixels, what coordinates count.
        points: in each crop.

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
        super().__init__(vocabulary, max_tokens, codec, size=size, points=points)
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

    def decode(self, ids: list[int]) -> UInt16[np.ndarray, "S S"]:
        """Numbers from 1, the largest box first, so that the smaller of two is seen."""
        plane = np.zeros((self.size, self.size), np.uint16)
        found = [self._read_polygon(each) for each in phrases(self.items(ids), _POLYGON)]
        # two points of one instance say the same of it
        polygons = sorted({each for each in found if each is not None}, key=_by_area)
        if polygons:
            masks = self.codec.decode(np.array([codes for _, codes in polygons], np.int64))
            for value, ((box, _), mask) in enumerate(zip(polygons, masks, strict=True), 1):
                paint_mask(plane, mask, box, value)
        return plane

    def _sentences(
        self, label: Any, crops: CropSettings, image_size: tuple[int, int], key: str
    ) -> list[list[int]]:
        planes = crop_dense(label, Kind.INSTANCES, crops, image_size, self.size)
        queries: list[list[_Query]] = []
        boxes: list[Box] = []
        masks: list[Bool[np.ndarray, "S S"]] = []
        for plane, crop in zip(planes, crops.tolist(), strict=True):
            seen: dict[int, int | None] = {0: None}
            found = []
            for row, column in self._points(key, crop):
                value = int(plane[row, column])
                if value not in seen:
                    mask = plane == value
                    box = box_of(mask)
                    seen[value] = len(boxes) if self._is_large(box) else None
                    if self._is_large(box):
                        boxes.append(box)
                        masks.append(cut_mask(mask, box, self.codec.side))
                found.append(_Query(row, column, seen[value]))
            queries.append(found)
        codes = self.codec.encode(np.stack(masks)) if masks else np.zeros((0, _CODES), np.int64)
        return [self._spell(each, boxes, codes) for each in queries]

    def _points(self, key: str, crop: Sequence[int]) -> list[tuple[int, int]]:
        draws = uniforms(2 * self.points, "points", key, *crop)
        places = [int(each * self.size) for each in draws]
        # a point that is drawn twice is one
        return list(dict.fromkeys(zip(places[::2], places[1::2], strict=True)))

    def _is_large(self, box: Box) -> bool:
        left, top, right, bottom = box
        return (right - left) * (bottom - top) >= _LEAST_AREA * self.size**2

    def _spell(
        self, queries: Sequence[_Query], boxes: Sequence[Box], codes: Int64[np.ndarray, "M N"]
    ) -> list[int]:
        ids: list[int] = []
        for each in queries:
            phrase = [*self.word(_POINT), number(0, each.row), number(1, each.column)]
            if each.mask is None:
                phrase += self.word(_NONE)
            else:
                corners = [number(axis, bin) for axis, bin in enumerate(boxes[each.mask])]
                spelled = spell_codes(codes[each.mask].tolist())
                phrase += [*self.word(_POLYGON), *corners, *spelled]
            if len(ids) + len(phrase) >= self.spec.max_tokens:
                break
            ids += phrase
        return ids

    def _read_polygon(self, items: Sequence[Item]) -> tuple[Box, tuple[int, ...]] | None:
        corners, codes = read_bins(items, (0, 1, 2, 3)), read_codes(items[4:], _CODES)
        if corners is None or codes is None or max(codes) >= self.codec.spec.vocab_size:
            return None
        left, top, right, bottom = corners
        is_shown = left < min(right, self.size) and top < min(bottom, self.size)
        return ((left, top, right, bottom), codes) if is_shown else None


def _by_area(polygon: tuple[Box, tuple[int, ...]]) -> tuple[int, Box, tuple[int, ...]]:
    (left, top, right, bottom), codes = polygon
    return -(right - left) * (bottom - top), (left, top, right, bottom), codes
