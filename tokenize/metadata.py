"""What is known of a picture in numbers, as words: `v1=<which number> v0=<its bin>` for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError, UnknownNameError
from fourmill.tokenize.draws import shuffled
from fourmill.tokenize.vocabulary import NUM_BINS, number, parse_number
from fourmill.tokenize.words import WordTokenizer

_VALUE, _FIELD = 0, 1  # axes
_STEPS = 49  # of a range


@dataclass(frozen=True)
class Field:
    """How one number becomes a bin: whole units, steps of a range, or between edges.

    Attributes:
        unit: for whole numbers, how many make one bin.
        high: for measures, the end of the range from 0 that 50 bins cover.
        edges: for scores, where the next bin begins.
    """

    name: str
    unit: int = 0
    high: float = 0.0
    edges: tuple[float, ...] = ()

    def to_bin(self, value: int | float) -> int:
        """The bin of a value; what is out of range goes to the nearest."""
        if self.unit:
            return min(max(int(value) // self.unit, 0), NUM_BINS - 1)
        if self.edges:
            return sum(value >= edge for edge in self.edges)
        return int(min(max(value / self.high, 0.0), 1.0) * _STEPS)

    def to_value(self, bin: int) -> int | float:
        """A value of the bin: the least one, or the middle of a step."""
        if self.unit:
            return bin * self.unit
        if self.edges:
            return (0.0, *self.edges)[min(bin, len(self.edges))]
        return min(bin + 0.5, _STEPS) / _STEPS * self.high


FIELDS: Sequence[Field] = (
    Field("original_width", unit=32),
    Field("original_height", unit=32),
    Field("caption_n_chars", unit=1),
    Field("caption_n_words", unit=1),
    Field("caption_n_sentences", unit=1),
    Field("n_humans", unit=1),
    Field("n_sam_instances", unit=1),
    Field("n_coco_instances", unit=1),
    Field("coco_instance_diversity", unit=1),
    Field("colorfulness", high=150.0),
    Field("brightness", high=255.0),
    Field("contrast", high=127.0),
    Field("saturation", high=255.0),
    Field("entropy", high=10.0),
    Field("walkability", high=1.0),
    Field("objectness", high=1.0),
    Field("semantic_diversity", unit=1),
    Field("geometric_complexity", high=0.75),
    Field("occlusion_score", high=0.25),
    Field("watermark_score", edges=(0.5,)),
    Field("aesthetic_score", edges=(4.5, 5.5)),
)
"""In the order of the reference's ids."""

_IDS = {field.name: id for id, field in enumerate(FIELDS)}


class MetadataTokenizer(WordTokenizer):
    """`metadata` ↔ `tok_metadata`: pairs in an order that the sample's key draws."""

    kind = "metadata"
    reads = "metadata"

    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of whole pairs, as many as fit."""
        if not isinstance(label, dict):
            raise SampleError(self.reads, f"found {type(label).__name__}, expected a dict")
        pairs = [_encode_field(name, label[name]) for name in sorted(label)]
        pairs = shuffled(pairs, "metadata", key)[: (self.spec.max_tokens - 1) // 2]
        return [id for pair in pairs for id in pair]

    def decode(self, ids: list[int]) -> dict[str, Any]:
        """The numbers as far as their bins tell, in the order of the ids."""
        numbers = [parse_number(id) for id in ids]
        values = {}
        for which, value in pairwise(numbers):
            if which is None or value is None or which[1] >= len(FIELDS):
                continue
            if (which[0], value[0]) == (_FIELD, _VALUE):
                field = FIELDS[which[1]]
                values[field.name] = field.to_value(value[1])
        return values


def _encode_field(name: str, value: object) -> tuple[int, int]:
    if name not in _IDS:
        raise SampleError("metadata", str(UnknownNameError("field", name, _IDS)))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SampleError("metadata", f"{name} is {value!r}, expected a number")
    return number(_FIELD, _IDS[name]), number(_VALUE, FIELDS[_IDS[name]].to_bin(value))
