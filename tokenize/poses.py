"""People's bodies as words: where each is, how it stands, and what shape it has.

A person is `human v0=<left> v1=<top> v2=<right> v3=<bottom>`, then in any order the groups
`pose` (8 codes), `global` (9 numbers), `camera` (3) and `shape` (10); an image without people is
`none`. The numbers are those of HMR 2.0 (Goel et al. 2023), in the bins of the reference.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label, check_label
from fourmill.tokenize.base import CropSettings, token_dtype
from fourmill.tokenize.boxes import clip_box
from fourmill.tokenize.coded import (
    NUM_CODES,
    CodedTokenizer,
    Item,
    phrases,
    read_bins,
    read_codes,
    spell_codes,
)
from fourmill.tokenize.draws import shuffled
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vocabulary import NUM_BINS, Vocabulary, number

JOINTS = 23
"""Of SMPL's body, each with a rotation relative to its parent; the pelvis is `global`."""

_LAST = NUM_BINS - 1
_CODES = 8
_HUMAN, _POSE, _NONE = "human", "pose", "none"
# SMPL's order: pairs of a left joint and its right one; spine, neck and head are their own
_PAIRS = ((0, 1), (3, 4), (6, 7), (9, 10), (12, 13), (15, 16), (17, 18), (19, 20), (21, 22))
_MIRRORED_JOINTS = list(range(JOINTS))
for _left, _right in _PAIRS:
    _MIRRORED_JOINTS[_left], _MIRRORED_JOINTS[_right] = _right, _left
# of a rotation matrix, seen in a mirror that swaps left and right: x changes its sign twice
_MIRROR = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], dtype=np.float64)


@dataclass(frozen=True)
class Scale:
    """How a group's numbers become bins: `bin = factor * value + offset`, rounded and clipped."""

    count: int
    factor: float
    offset: float

    def to_bin(self, value: float) -> int:
        """The bin of a value; what is out of range goes to the nearest."""
        return round(min(max(self.factor * value + self.offset, 0.0), float(_LAST)))

    def to_value(self, bin: int) -> float:
        """The middle of a bin."""
        return (bin - self.offset) / self.factor


SCALES: Mapping[str, Scale] = {
    "global": Scale(9, 499.5, 499.5),  # -1 to 1
    "camera": Scale(3, 49.95, 49.95),  # -1 to 19
    "shape": Scale(10, 166.5, 499.5),  # -3 to 3
}
"""By group; the pose has codes instead."""


@dataclass(frozen=True)
class Person:
    """One person of a label; `None` for what is not known.

    Attributes:
        box: (left, top, right, bottom) in pixels.
        groups: the numbers of `global`, `camera` and `shape`.
        codes: of the pose.
        body: rotation matrices of the joints, `[23, 3, 3]`.
    """

    box: tuple[float, ...]
    groups: Mapping[str, tuple[float, ...] | None]
    codes: tuple[int, ...] | None
    body: NDArray[np.float64] | None


class PosesTokenizer(CodedTokenizer):
    """`human_poses` ↔ `tok_human_poses`, of each crop.

    A label is what HMR 2.0 gives, as the reference stores it: `{}` or `[]` without people, else
    lists of one entry a person, `bbox_xyxy` (pixels of the image), `pred_cam`, `pred_smpl_params`
    with `global_orient`, `betas` and `body_pose`, and `pose_tokenized`, the codes of the pose.
    An entry may be null where it is not known: its group is left out then.

    Boxes follow crops and flips. In a flipped crop a person is mirrored: left and right joints
    change places, rotations and the camera's x are reflected. Codes cannot be mirrored without the
    codec, so without one a flipped person has no `pose` group. (The reference leaves both box and
    body as they were.) The camera stays that of the whole box. People are in the label's order;
    where not all fit, those with the largest boxes are kept, whole.

    Args:
        codec: of the pose, `EPFL-VILAB/4M_tokenizers_human-poses_1k_8` or one like it. Without one
            labels must have `pose_tokenized`.
    """

    kind = "poses"
    reads = "human_poses"
    per_crop = True
    words = (_HUMAN, _POSE, *SCALES, _NONE)
    codes = _CODES
    codec_class = VectorTokenizer

    def __init__(
        self, vocabulary: Vocabulary, max_tokens: int, codec: VectorTokenizer | None = None
    ) -> None:
        super().__init__(vocabulary, max_tokens, codec)
        self._codec = codec

    @property
    def codec(self) -> VectorTokenizer | None:
        """The tokenizer of poses."""
        return self._codec

    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """`[B, crops, tokens]`; see `Tokenizer`."""
        groups = []
        for label in labels:
            check_label(self.stored, label)
            groups.append(self._people(label))
        # one pass of the codec for all
        upright = self._with_codes(groups)
        flipped = self._with_codes(self._mirrored(groups, crops))
        rows = []
        for index, (settings, size, key) in enumerate(zip(crops, image_sizes, keys, strict=True)):
            sides = upright[index], flipped[index]
            rows.append(
                [self._pad(self._spell(sides[int(row[4])], key, row, size)) for row in settings]
            )
        return np.array(rows, dtype=token_dtype(self.spec.vocab_size))

    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of the people that the crop shows a part of."""
        row = np.array([0, 0, *image_size, 0]) if crop is None else crop
        people = [self._people(label)]
        if row[4]:
            people = self._mirrored(people, [row[None]])
        return self._spell(self._with_codes(people)[0], key, row, image_size)

    def decode(self, ids: list[int]) -> dict[str, Any]:
        """People as HMR 2.0 has them; boxes are relative to the crop, as if it were a pixel wide.

        What the ids do not say of a person is null. With a codec there are `body_pose`s, too.
        """
        people = [
            each for each in map(_read_person, phrases(self.items(ids), _HUMAN)) if each is not None
        ]
        if not people:
            return {}
        smpl = {
            "global_orient": [_matrices(each.groups["global"], 1) for each in people],
            "betas": [_listed(each.groups["shape"]) for each in people],
        }
        if self.codec is not None:
            bodies = [each.body for each in self._with_bodies(people)]
            smpl["body_pose"] = [None if each is None else each.tolist() for each in bodies]
        return {
            "bbox_xyxy": [list(each.box) for each in people],
            "pred_cam": [_listed(each.groups["camera"]) for each in people],
            "pred_smpl_params": smpl,
            "pose_tokenized": [_listed(each.codes) for each in people],
        }

    def _spell(
        self, people: Sequence[Person], key: str, crop: NDArray[np.int64], size: tuple[int, int]
    ) -> list[int]:
        found = []
        for index, person in enumerate(people):
            left, top, right, bottom = person.box
            shares = [left / size[1], top / size[0], right / size[1], bottom / size[0]]
            box = clip_box(shares, crop, size)
            if box is not None:
                area = (box[2] - box[0]) * (box[3] - box[1])
                found.append((area, index, self._spell_person(person, box, key, index)))
        if not found:
            return self.word(_NONE)
        kept, room = [], self.spec.max_tokens - 1
        for _, index, ids in sorted(found, key=lambda each: (-each[0], each[1])):
            room -= len(ids)
            if room < 0:
                break
            kept.append((index, ids))
        return [id for _, ids in sorted(kept) for id in ids]

    def _spell_person(
        self, person: Person, box: tuple[float, ...], key: str, index: int
    ) -> list[int]:
        groups = []
        if person.codes is not None:
            groups.append([*self.word(_POSE), *spell_codes(person.codes)])
        for name, values in person.groups.items():
            if values is not None:
                bins = [number(0, SCALES[name].to_bin(each)) for each in values]
                groups.append([*self.word(name), *bins])
        corners = [number(axis, round(value * _LAST)) for axis, value in enumerate(box)]
        ordered = shuffled(groups, "poses", key, index)
        return [*self.word(_HUMAN), *corners, *(id for group in ordered for id in group)]

    def _people(self, label: Any) -> list[Person]:
        people = read_people(label)
        for each in people:
            if each.codes is None and each.body is not None and self.codec is None:
                raise SampleError(
                    self.reads, "found body_pose without pose_tokenized: give the tokenizer a "
                    "codec (4M_tokenizers_human-poses), or the label the codes"
                )  # fmt: skip
        return people

    def _mirrored(
        self, groups: Sequence[list[Person]], crops: Sequence[CropSettings]
    ) -> list[list[Person]]:
        """The people of samples that have a flipped crop, in a mirror; none of the others."""
        shown = [
            people if settings[:, 4].any() else []
            for people, settings in zip(groups, crops, strict=True)
        ]
        if self.codec is not None:
            bodies = iter(self._with_bodies([each for people in shown for each in people]))
            shown = [[next(bodies) for _ in people] for people in shown]
        return [[_mirrored(each) for each in people] for people in shown]

    def _with_codes(self, groups: Sequence[list[Person]]) -> list[list[Person]]:
        """The same people, with codes of the bodies that have none yet."""
        people = [each for some in groups for each in some]
        wanted = [
            index for index, each in enumerate(people)
            if each.codes is None and each.body is not None
        ]  # fmt: skip
        if self.codec is not None and wanted:
            flat = [np.asarray(people[index].body, np.float32).ravel() for index in wanted]
            for index, codes in zip(wanted, self.codec.encode(np.stack(flat)), strict=True):
                people[index] = replace(people[index], codes=tuple(codes.tolist()))
        again = iter(people)
        return [[next(again) for _ in some] for some in groups]

    def _with_bodies(self, people: Sequence[Person]) -> list[Person]:
        """The same people, with the bodies that codes stand for where there are none yet."""
        assert self.codec is not None
        known = self.codec.spec.vocab_size
        result = list(people)
        wanted = [
            index for index, each in enumerate(people)
            if each.body is None and each.codes is not None and max(each.codes) < known
        ]  # fmt: skip
        if wanted:
            ids = np.array([people[index].codes for index in wanted], np.int64)
            for index, flat in zip(wanted, self.codec.decode(ids), strict=True):
                body = flat.astype(np.float64).reshape(JOINTS, 3, 3)
                result[index] = replace(people[index], body=body)
        return result


def mirror_body(
    body: Float[np.ndarray, "joints 3 3"],
) -> Float[np.ndarray, "joints 3 3"]:
    """Rotation matrices of SMPL's 23 joints as a mirror shows them; its own inverse."""
    mirrored: NDArray[np.float64] = body[_MIRRORED_JOINTS] * _MIRROR
    return mirrored


def _mirrored(person: Person) -> Person:
    groups = dict(person.groups)
    turn, camera = groups["global"], groups["camera"]
    if turn is not None:
        groups["global"] = tuple((np.reshape(turn, (3, 3)) * _MIRROR).ravel().tolist())
    if camera is not None:
        scale, across, down = camera
        groups["camera"] = (scale, -across, down)
    body = None if person.body is None else mirror_body(person.body)
    return replace(person, groups=groups, codes=None, body=body)


def _read_person(items: Sequence[Item]) -> Person | None:
    """The person that a phrase describes; `None` for one without a box."""
    corners = read_bins(items, (0, 1, 2, 3))
    if corners is None or corners[0] > corners[2] or corners[1] > corners[3]:
        return None
    groups: dict[str, tuple[float, ...] | None] = dict.fromkeys(SCALES)
    codes = None
    for index, item in enumerate(items):
        rest = items[index + 1 :]
        if item == _POSE and codes is None:
            codes = read_codes(rest, _CODES)
        elif isinstance(item, str) and item in SCALES and groups[item] is None:
            scale = SCALES[item]
            bins = read_bins(rest, (0,) * scale.count)
            groups[item] = None if bins is None else tuple(map(scale.to_value, bins))
    return Person(tuple(each / _LAST for each in corners), groups, codes, None)


def read_people(label: Any) -> list[Person]:
    """The people of a label of `human_poses`, which is a `SampleError` if it is anything else."""
    if not label:
        return []
    if not isinstance(label, dict):
        raise _problem("people", label, "a dict of lists, or nothing")
    smpl = label.get("pred_smpl_params", {})
    if not isinstance(smpl, dict):
        raise _problem("pred_smpl_params", smpl, "a dict of lists")
    boxes = _entries(label, "bbox_xyxy", None)
    columns = {
        "global": _entries(smpl, "global_orient", len(boxes)),
        "camera": _entries(label, "pred_cam", len(boxes)),
        "shape": _entries(smpl, "betas", len(boxes)),
        "pose": _entries(label, "pose_tokenized", len(boxes)),
        "body": _entries(smpl, "body_pose", len(boxes)),
    }
    return [
        _person(box, {name: values[index] for name, values in columns.items()})
        for index, box in enumerate(boxes)
    ]


def _person(box: Any, entries: Mapping[str, Any]) -> Person:
    codes = _numbers("pose_tokenized", entries["pose"], _CODES)
    if codes is not None and not all(0 <= each < NUM_CODES and each % 1 == 0 for each in codes):
        raise _problem("pose_tokenized", entries["pose"], f"whole numbers below {NUM_CODES}")
    body = _numbers("body_pose", entries["body"], JOINTS * 9)
    return Person(
        _numbers("bbox_xyxy", box, 4) or (),
        {name: _numbers(name, entries[name], scale.count) for name, scale in SCALES.items()},
        None if codes is None else tuple(map(int, codes)),
        None if body is None else np.array(body, np.float64).reshape(JOINTS, 3, 3),
    )


def _entries(values: Mapping[str, Any], name: str, count: int | None) -> list[Any]:
    found = values.get(name)
    if found is None and count is not None:
        return [None] * count
    if not isinstance(found, list) or count not in (None, len(found)):
        people = "one for each person" if count is None else f"one for each of {count} people"
        raise _problem(name, found, f"a list, {people}")
    return found


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...] | None:
    """The numbers of nested lists, in order; nothing for null, but for a box."""
    if value is None and name != "bbox_xyxy":
        return None
    flat = list(_flat(value))
    if len(flat) != count or not all(type(each) in (int, float) for each in flat):
        raise _problem(name, value, f"{count} numbers a person")
    try:
        numbers = tuple(map(float, flat))
    except OverflowError as error:
        raise _problem(name, value, f"{count} numbers a person") from error
    if not all(map(math.isfinite, numbers)):
        raise _problem(name, value, "finite numbers")
    return numbers


def _flat(value: Any) -> Iterable[Any]:
    if not isinstance(value, list):
        yield value
        return
    for each in value:
        yield from _flat(each)


def _matrices(values: tuple[float, ...] | None, count: int) -> Any:
    return None if values is None else np.reshape(values, (count, 3, 3)).tolist()


def _listed(values: tuple[float, ...] | tuple[int, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _problem(name: str, found: object, expected: str) -> SampleError:
    text = repr(found)
    shown = text if len(text) <= 80 else f"{text[:77]}…"
    return SampleError("human_poses", f"{name} is {shown}, expected {expected}")
