"""Edits of labels: a box is moved, a word replaced, a plane of depth shifted, a colour changed.

All places are relative to the square that the model sees, 0..1, from its upper left corner. An edit
is also written as words, see `parse_edit`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import Label
from fourmill.tokenize.metadata import FIELDS

Box = tuple[float, float, float, float]
"""(left, top, right, bottom), 0..1."""

_SMALLEST = 0.002  # sides of a box: coordinates are thousandths


@dataclass(frozen=True)
class Edit(ABC):
    """A change of one label.

    Attributes:
        modality: what is edited: `det`, `caption`, `depth`, `color_palette`, `metadata`.
    """

    modality: ClassVar[str]

    @abstractmethod
    def apply(self, label: Label) -> Label:
        """The label after the edit; the one that is given stays as it is.

        Raises:
            ConfigError: what is edited is not there, or the result is no label.
        """


@dataclass(frozen=True)
class EditBox(Edit):
    """An edit of one box that is there.

    Attributes:
        which: its number, from 0 in the order of the label, or the class of the first such box.
    """

    which: str

    modality: ClassVar[str] = "det"

    def apply(self, label: Label) -> Label:
        edited: Any = deepcopy(label)
        boxes = edited["instances"]
        self.change(boxes, _find(boxes, self.which))
        return edited  # type: ignore[no-any-return]

    @abstractmethod
    def change(self, boxes: list[dict[str, Any]], place: int) -> None:
        """Change one of the boxes."""


@dataclass(frozen=True)
class PlaceBox(EditBox):
    """Put a box where it is said to be: moved, resized, or both."""

    box: Box

    def change(self, boxes: list[dict[str, Any]], place: int) -> None:
        boxes[place]["boxes"] = _clipped(self.box)


@dataclass(frozen=True)
class MoveBox(EditBox):
    """Move a box, to the right and downwards; it is cut off at the border."""

    right: float
    down: float

    def change(self, boxes: list[dict[str, Any]], place: int) -> None:
        left, top, right, bottom = boxes[place]["boxes"]
        moved = (left + self.right, top + self.down, right + self.right, bottom + self.down)
        boxes[place]["boxes"] = _clipped(moved)


@dataclass(frozen=True)
class ScaleBox(EditBox):
    """Make a box larger or smaller around its middle."""

    factor: float

    def change(self, boxes: list[dict[str, Any]], place: int) -> None:
        left, top, right, bottom = boxes[place]["boxes"]
        x, y = (left + right) / 2, (top + bottom) / 2
        wide, high = ((right - left) * self.factor / 2, (bottom - top) * self.factor / 2)
        boxes[place]["boxes"] = _clipped((x - wide, y - high, x + wide, y + high))


@dataclass(frozen=True)
class RenameBox(EditBox):
    """Give a box another class."""

    name: str

    def change(self, boxes: list[dict[str, Any]], place: int) -> None:
        boxes[place]["class_name"] = _said(self.name)


@dataclass(frozen=True)
class DropBox(EditBox):
    """Take a box away."""

    def change(self, boxes: list[dict[str, Any]], place: int) -> None:
        del boxes[place]


@dataclass(frozen=True)
class AddBox(Edit):
    """One box more."""

    box: Box
    name: str

    modality: ClassVar[str] = "det"

    def apply(self, label: Label) -> Label:
        edited: Any = deepcopy(label)
        box = {"boxes": _clipped(self.box), "class_name": _said(self.name), "score": 1.0}
        edited["instances"].append(box)
        return edited  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ReplaceWord(Edit):
    """Say something else instead of a word, wherever the caption says it."""

    old: str
    new: str

    modality: ClassVar[str] = "caption"

    def apply(self, label: Label) -> Label:
        assert isinstance(label, str)
        words = label.split()
        if self.old.lower() not in words:
            raise UnknownNameError(f"word in the caption {label!r}", self.old, words)
        changed = [self.new if word == self.old.lower() else word for word in words]
        text = " ".join(each for each in changed if each)
        if not text.strip():
            raise ConfigError(f"caption: without {self.old!r} nothing is left of {label!r}")
        return text


@dataclass(frozen=True)
class ShiftDepth(Edit):
    """Move what is in a box away, or nearer.

    Attributes:
        by: of relative depth, in which 0.1 is one deviation of the picture's; positive is farther.
    """

    by: float
    box: Box = (0.0, 0.0, 1.0, 1.0)

    modality: ClassVar[str] = "depth"

    def apply(self, label: Label) -> Label:
        assert isinstance(label, np.ndarray)
        edited: NDArray[np.float32] = label.copy()
        rows, columns = _pixels(self.box, *label.shape)
        edited[rows, columns] = np.clip(edited[rows, columns] + self.by, 0, 1)
        return edited


@dataclass(frozen=True)
class Recolour(Edit):
    """Another colour in the palette.

    Attributes:
        which: the colour's number, from 0.
        colour: red, green, blue, 0..255.
    """

    which: int
    colour: tuple[int, int, int]

    modality: ClassVar[str] = "color_palette"

    def apply(self, label: Label) -> Label:
        edited: Any = deepcopy(label)
        colours = next(iter(edited[0].values())) if edited else []
        if not 0 <= self.which < len(colours):
            shown = ", ".join(f"{n}: {colour}" for n, colour in enumerate(colours)) or "none"
            raise ConfigError(f"the palette has no colour {self.which}; it has {shown}")
        if not all(0 <= each <= 255 for each in self.colour):
            raise ConfigError(
                f"found the colour {self.colour}, expected red, green, blue of 0..255"
            )
        colours[self.which] = list(self.colour)
        return edited  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SetMetadata(Edit):
    """Another number for what is known of a picture."""

    name: str
    value: float

    modality: ClassVar[str] = "metadata"

    def apply(self, label: Label) -> Label:
        assert isinstance(label, dict)
        known = [field.name for field in FIELDS]
        if self.name not in known:
            raise UnknownNameError("number of metadata", self.name, known)
        whole = any(field.unit for field in FIELDS if field.name == self.name)
        return {**label, self.name: int(self.value) if whole else self.value}


EXAMPLES = (
    "box 0 by 0.2 0", "box dog to 0.1 0.2 0.5 0.9", "box 0 scale 1.5", "box 0 class cat",
    "box 0 drop", "box add 0.1 0.2 0.5 0.9 dog", "word cat dog", "depth by 0.2",
    "depth by -0.1 in 0 0 0.5 1", "colour 0 255 0 0", "metadata brightness 200",
)  # fmt: skip
"""One of each form that `parse_edit` reads."""


def parse_edit(text: str) -> Edit:
    """An edit in words.

    >>> parse_edit("box 0 by 0.2 0")
    MoveBox(which='0', right=0.2, down=0.0)
    >>> parse_edit("word cat small dog")
    ReplaceWord(old='cat', new='small dog')

    Raises:
        ConfigError: not of one of the forms, which the message lists.
    """
    words = text.split()
    try:
        match words:
            case ["box", "add", left, top, right, bottom, *name] if name:
                return AddBox(_box([left, top, right, bottom]), " ".join(name))
            case ["box", *which, "drop"] if which:
                return DropBox(" ".join(which))
            case ["box", *which, "by", right, down] if which:
                return MoveBox(" ".join(which), _number(right), _number(down))
            case ["box", *which, "scale", factor] if which:
                return ScaleBox(" ".join(which), _number(factor))
            case ["box", *which, "to", left, top, right, bottom] if which:
                return PlaceBox(" ".join(which), _box([left, top, right, bottom]))
            case ["box", *rest] if "class" in rest[1:-1]:
                place = rest.index("class", 1)
                return RenameBox(" ".join(rest[:place]), " ".join(rest[place + 1 :]))
            case ["word", old, *new]:
                return ReplaceWord(old, " ".join(new))
            case ["depth", "by", by]:
                return ShiftDepth(_number(by))
            case ["depth", "by", by, "in", *box]:
                return ShiftDepth(_number(by), _box(box))
            case ["colour", which, red, green, blue]:
                return Recolour(int(which), (int(red), int(green), int(blue)))
            case ["metadata", name, value]:
                return SetMetadata(name, _number(value))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"--edit {text!r}: {error}") from error
    raise ConfigError(f"--edit {text!r}: expected one of the forms {'; '.join(EXAMPLES)}")


def touched(before: Label, after: Label) -> list[Box]:
    """Where two labels of boxes differ; nowhere for labels that have no places."""
    if not (isinstance(before, dict) and isinstance(after, dict) and "instances" in before):
        return []
    old, new = before["instances"], after["instances"]
    gone = [each for each in old if each not in new]
    differing = gone + [each for each in new if each not in old]
    corners = [[float(value) for value in each["boxes"]] for each in differing]
    return [(left, top, right, bottom) for left, top, right, bottom in corners]


def cells_of(boxes: Sequence[Box], rows: int, columns: int) -> NDArray[np.bool_]:
    """Which cells of a grid some boxes touch, `[rows, columns]`."""
    cells = np.zeros((rows, columns), np.bool_)
    for box in boxes:
        cells[_pixels(box, rows, columns)] = True
    return cells


def _pixels(box: Box, rows: int, columns: int) -> tuple[slice, slice]:
    """All rows and columns that a box touches; of a box beyond the border what is within."""
    left, top, right, bottom = (min(max(each, 0.0), 1.0) for each in box)
    # what is on a border is in one cell, whatever the last bit of a product says
    inside = 1e-6
    return (
        slice(int(top * rows + inside), max(math.ceil(bottom * rows - inside), 1)),
        slice(int(left * columns + inside), max(math.ceil(right * columns - inside), 1)),
    )


def _find(boxes: Sequence[dict[str, Any]], which: str) -> int:
    names = [each["class_name"] for each in boxes]
    place = int(which) if which.isdecimal() else (names.index(which) if which in names else -1)
    if not 0 <= place < len(boxes):
        shown = ", ".join(f"{number}: {name}" for number, name in enumerate(names)) or "none"
        raise ConfigError(f"there is no box {which!r} in what the model sees; there are {shown}")
    return place


def _clipped(box: Box) -> list[float]:
    clipped = [min(max(each, 0.0), 1.0) for each in box]
    left, top, right, bottom = clipped
    if right - left < _SMALLEST or bottom - top < _SMALLEST:
        shown = ", ".join(f"{each:g}" for each in box)
        raise ConfigError(
            f"the box {shown} has nothing in the picture; expected left, top, right, bottom of 0..1"
        )
    return clipped


def _said(name: str) -> str:
    if not name.strip():
        raise ConfigError("a box needs a class: write one")
    return name


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"found {text}, expected a number")
    return value


def _box(words: Sequence[str]) -> Box:
    left, top, right, bottom = map(_number, words)
    _clipped((left, top, right, bottom))
    return left, top, right, bottom
