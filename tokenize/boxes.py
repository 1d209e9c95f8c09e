"""Detections as words: `v0=<left> v1=<top> v2=<right> v3=<bottom> <class>` for each box.

Pix2seq (Chen et al. 2022) as 4M has it: coordinates relative to the crop, in thousandths; boxes in
order of the distance of their upper left corner from the crop's.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.modalities import Modality
from fourmill.tokenize.vocabulary import EOS, NUM_BINS, Vocabulary, number, parse_number
from fourmill.tokenize.words import WordTokenizer

_LAST = NUM_BINS - 1


class BoxesTokenizer(WordTokenizer):
    """`det` ↔ `tok_det`, of each crop; or other boxes.

    Where not all boxes fit, the ones of lowest score are left out, so that every box that is there
    is whole. (The reference cuts the string at its 256 tokens.)

    Args:
        min_score: boxes below it are left out; 0.6 in the reference.
        definition: of other boxes, see `WordTokenizer`.
    """

    kind = "boxes"
    reads = "det"
    per_crop = True

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_tokens: int,
        min_score: float = 0.6,
        definition: Modality | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vocabulary, max_tokens, definition, min_score=min_score)
        self.min_score = min_score

    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of the boxes that the crop shows a part of."""
        whole = np.array([0, 0, *image_size, 0])
        found = []
        for index, each in enumerate(label["instances"]):
            box = clip_box(each["boxes"], whole if crop is None else crop, image_size)
            if box and each["score"] >= self.min_score:
                ids = [number(axis, round(value * _LAST)) for axis, value in enumerate(box)]
                ids += self.vocabulary.encode(each["class_name"])
                place = (box[0] ** 2 + box[1] ** 2, index)
                found.append((each["score"], place, ids))
        kept, room = [], self.spec.max_tokens - 1
        for _, place, ids in sorted(found, key=lambda each: -each[0]):
            room -= len(ids)
            if room < 0:
                break
            kept.append((place, ids))
        return [id for _, ids in sorted(kept) for id in ids]

    def decode(self, ids: list[int]) -> dict[str, Any]:
        """Boxes relative to the crop; the score, which no token says, is 1."""
        instances = []
        for corners, name in self._phrases(ids):
            left, top, right, bottom = (each / _LAST for each in corners)
            text = self.vocabulary.decode(name).strip()
            if text and left <= right and top <= bottom:
                box = [left, top, right, bottom]
                instances.append({"boxes": box, "class_name": text, "score": 1.0})
        return {"instances": instances}

    def _phrases(self, ids: list[int]) -> list[tuple[list[int], list[int]]]:
        """Four corners and the ids of a name, for every stretch of ids that has that form."""
        starts = [i for i, id in enumerate(ids) if (parse_number(id) or (-1,))[0] == 0]
        phrases = []
        for start, stop in pairwise([*starts, len(ids)]):
            numbers = [parse_number(id) for id in ids[start : start + 4]]
            corners = [each[1] for axis, each in enumerate(numbers) if each and each[0] == axis]
            name = ids[start + 4 : stop]
            if len(corners) == 4 and not any(parse_number(id) or id <= EOS for id in name):
                phrases.append((corners, name))
        return phrases


def clip_box(
    box: Sequence[int | float], crop: NDArray[np.int64], image_size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """The part of a box that a crop shows, relative to the crop; `None` if it shows nothing of it.

    Args:
        box: (left, top, right, bottom) relative to the image, 0..1.
        crop: (top, left, height, width, flip) in pixels of the image.
        image_size: (height, width) of the image.
    """
    top, left, height, width, is_flipped = crop.tolist()
    rows, columns = image_size
    x0, x1 = ((share * columns - left) / width for share in (box[0], box[2]))
    y0, y1 = ((share * rows - top) / height for share in (box[1], box[3]))
    if is_flipped:
        x0, x1 = 1 - x1, 1 - x0
    x0, y0, x1, y1 = (min(max(each, 0.0), 1.0) for each in (x0, y0, x1, y1))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
