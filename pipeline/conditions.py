"""Conditions that a mark puts to samples: what they say, and what they measure.

score(det) >= 0.5                        the best score of the sample's boxes or entries
count(caption) >= 3                      how many words, boxes, instances or entries it has
agreement(depth, depth:finer) >= 0.9     of two modalities, or of two snapshots' versions
metadata.brightness > 30                 a number in a structure
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourmill.manifests.agreement import HEADLINES, compare
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Modality

_FORM = re.compile(
    r"\s*(?:(?P<measure>\w+)\s*\((?P<of>[^()]*)\)|(?P<modality>[^\s.()<>=!]+)\.(?P<field>[\w.]+))"
    r"\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>\S+)\s*"
)
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_OPERANDS = {"score": 1, "count": 1, "agreement": 2}


@dataclass(frozen=True)
class Reference:
    """A modality in the dataset's current snapshot (`""`), or in another one."""

    modality: str
    snapshot: str = ""

    def __str__(self) -> str:
        return f"{self.modality}:{self.snapshot}" if self.snapshot else self.modality


@dataclass(frozen=True)
class Condition:
    """A measure of a sample's labels and a bound that it has to keep.

    Attributes:
        measure: `score`, `count`, `agreement`, or `field` with the dotted place of the number.
    """

    measure: str
    of: tuple[Reference, ...]
    sign: str
    bound: float
    field: str = ""

    @property
    def left(self) -> str:
        """What is measured, as written."""
        if self.measure == "field":
            return f"{self.of[0]}.{self.field}"
        return f"{self.measure}({', '.join(map(str, self.of))})"

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.bound:g}"

    def value(
        self, definitions: Sequence[Modality], labels: Sequence[Label | None]
    ) -> float | None:
        """The measure of one sample, or `None` where it has none.

        Args:
            definitions, labels: of the modalities in `of`, in that order.
        """
        known = [each for each in labels if each is not None]
        if len(known) < len(labels):
            return None
        if self.measure == "agreement":
            found = compare(definitions[0], known[0], definitions[1], known[1])
            value: float | None = found.measures[HEADLINES[definitions[0].kind]]
        elif self.measure == "score":
            value = _best_score(known[0])
        elif self.measure == "count":
            value = _count(known[0])
        else:
            value = _number(known[0], self.field)
        return None if value is None or math.isnan(value) else float(value)

    def holds(self, value: float | None) -> bool:
        """Whether a sample with this value keeps the bound; one without a value does not."""
        return value is not None and _SIGNS[self.sign](value, self.bound)


def parse_condition(text: str) -> Condition:
    """The condition that a text says.

    >>> str(parse_condition("agreement(depth,depth:finer)>=.9"))
    'agreement(depth, depth:finer) >= 0.9'

    Raises:
        ConfigError: it says none; the message shows what one looks like.
        UnknownNameError: a measure that nobody knows.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--where {text!r}: expected a measure and a bound, such as 'score(det) >= 0.5', "
            f"'count(caption) >= 3', 'agreement(depth, depth:SNAPSHOT) >= 0.9' or "
            f"'metadata.brightness > 30'"
        )
    try:
        bound = float(found["bound"])
    except ValueError as error:
        raise ConfigError(f"--where {text!r}: {found['bound']!r} is no number") from error
    if found["modality"]:
        place = (_reference(found["modality"]),)
        return Condition("field", place, found["sign"], bound, found["field"])
    if found["measure"] not in _OPERANDS:
        raise UnknownNameError("measure", found["measure"], _OPERANDS)
    of = tuple(_reference(each) for each in found["of"].split(","))
    if len(of) != _OPERANDS[found["measure"]] or not all(each.modality for each in of):
        raise ConfigError(
            f"--where {text!r}: {found['measure']} is of {_OPERANDS[found['measure']]} modalities"
        )
    return Condition(found["measure"], of, found["sign"], bound)


def _reference(text: str) -> Reference:
    modality, _, snapshot = text.strip().partition(":")
    return Reference(modality, snapshot)


def _best_score(label: Label) -> float | None:
    entries = label.get("instances", [label]) if isinstance(label, dict) else label
    if not isinstance(entries, list):
        return None
    scores = [
        float(each["score"]) for each in entries
        if isinstance(each, dict) and _is_number(each.get("score"))
    ]  # fmt: skip
    return max(scores, default=None)


def _count(label: Label) -> int:
    if isinstance(label, str):
        return len(label.split())
    if isinstance(label, np.ndarray):
        return int(np.count_nonzero(np.unique(label)))
    return len(label.get("instances", label) if isinstance(label, dict) else label)


def _number(label: Label, field: str) -> float | None:
    value: Any = label
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
