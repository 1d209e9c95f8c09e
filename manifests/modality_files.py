"""A modality as a YAML file: it says what the values are, and all else follows from their kind.

```yaml
name: thermal
kind: plane
range: [-40, 150]
unit: °C
```
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fourmill.manifests import configs
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.modalities import (
    TEXT_VOCAB,
    Kind,
    Masking,
    Modality,
    modality,
    modality_names,
    register,
)

LossName = Literal["l1", "l2", "smooth_l1", "cross_entropy", "cosine"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = frozenset({"HEAD", "snapshots", "names", "key", "image_size", "source"})
_TEXT_TOKENS = 256  # of a caption, and of boxes


class ModalityFile(BaseModel):
    """What a file says; `definition` is what follows from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="letters, digits and underscores; also the folder's name")
    kind: str = Field(
        description="image, edge (a grey image), depth, normal, plane, classes, instances, "
        "features, vector, sequence, text or boxes"
    )
    channels: int | None = Field(
        default=None, ge=1, description="of features, vectors and sequences"
    )
    range: tuple[float, float] | None = Field(
        default=None, description="lowest and highest number of a plane"
    )
    unit: str = Field(default="", description="of the numbers of a plane, for people")
    classes: tuple[str, ...] | None = Field(
        default=None, description="names of the class indices, from 0; 255 is unknown"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="most tokens of a text or of boxes; vectors of a sequence"
    )
    losses: dict[LossName, float] | None = Field(
        default=None, description="weights of its tokenizer's losses; by its kind if absent"
    )
    description: str = Field(default="", description="for people")


@dataclass(frozen=True)
class _Shape:
    """What is known of a kind.

    Attributes:
        channels: of all its modalities; 0 where the file says it.
        needs: keys without which it means nothing.
        allows: keys beyond those.
        one: of it, in words.
    """

    kind: Kind
    one: str
    extension: str
    channels: int = 0
    needs: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()
    masking: Masking | None = None


_LOSSES = ("losses",)
_SHAPES = {
    each.kind.value: each
    for each in (
        _Shape(Kind.IMAGE, "an image", "png", 3, (), _LOSSES),
        _Shape(Kind.EDGE, "a grey image", "png", 1, (), _LOSSES),
        _Shape(Kind.DEPTH, "depth", "png", 1, (), _LOSSES),
        _Shape(Kind.NORMAL, "a map of normals", "png", 3, (), _LOSSES),
        _Shape(Kind.PLANE, "a plane", "png", 1, ("range",), ("unit", *_LOSSES)),
        _Shape(Kind.CLASSES, "a class map", "png", 0, ("classes",), _LOSSES),
        _Shape(Kind.INSTANCES, "a map of instances", "png", 1),
        _Shape(Kind.FEATURE_MAP, "a feature map", "npy", 0, ("channels",), _LOSSES),
        _Shape(Kind.VECTOR, "a vector", "npy", 0, ("channels",)),
        _Shape(
            Kind.SEQUENCE, "a sequence", "npz", 0, ("channels", "max_tokens"),
            masking=Masking.EMBEDDING,
        ),
        _Shape(Kind.TEXT, "a text", "txt", 0, (), ("max_tokens",), Masking.SEQUENCE),
        _Shape(Kind.BOXES, "a set of boxes", "json", 0, (), ("max_tokens",), Masking.SEQUENCE),
    )
}  # fmt: skip


def load_modality(path: Path) -> Modality:
    """The modality in a YAML file, made known under its name.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest is named), a value that
            its kind cannot have, a name that means something else.
    """
    return _declare(configs.read_yaml(path), str(path))[1]


def load_modalities(entries: Sequence[object], place: str) -> list[ModalityFile]:
    """What some files say, or mappings that stand for files; all are made known.

    Args:
        entries: paths, relative to the working directory, or mappings.
        place: the file that they stand in, for messages.

    Raises:
        ConfigError: as `load_modality`.
    """
    found = []
    for number, each in enumerate(entries):
        if isinstance(each, str | Path):
            found.append(_declare(configs.read_yaml(Path(each)), str(each))[0])
        elif isinstance(each, Mapping):
            found.append(_declare(each, place, f"modalities.{number}")[0])
        else:
            raise ConfigError(
                f"{place}: modalities.{number}: found {each!r}, expected the path of a modality's "
                f"file, or what such a file holds"
            )
    return found


def declare_in(values: dict[str, Any], place: str) -> None:
    """Make known the `modalities` of a configuration, which then stand in it in full.

    Args:
        values: of the configuration, changed in place.
        place: its file, for messages.

    Raises:
        ConfigError: not a list, or as `load_modality`.
    """
    declared = values.get("modalities") or []
    if not isinstance(declared, list):
        raise ConfigError(f"{place}: modalities: found {declared!r}, expected a list")
    values["modalities"] = load_modalities(declared, place)


def losses_of(files: Sequence[ModalityFile]) -> dict[str, dict[LossName, float]]:
    """By modality, the losses that files name for its tokenizer."""
    return {each.name: each.losses for each in files if each.losses}


def _declare(
    values: Mapping[str, Any], place: str, section: str = ""
) -> tuple[ModalityFile, Modality]:
    """What the mapping of a file says, and the modality that it defines, which is made known.

    Args:
        place: the file; `section` is the mapping's place in it, for messages.

    Raises:
        ConfigError: as `load_modality`.
    """
    file = configs.validate(ModalityFile, values, place, section)
    definition = _definition(file, f"{place}: {section}." if section else f"{place}: ")
    return file, definition


def _definition(file: ModalityFile, place: str) -> Modality:
    _refuse_name(file.name, place)
    try:
        shape = _SHAPES[file.kind]
    except KeyError:
        raise ConfigError(f"{place}kind: {UnknownNameError('kind', file.kind, _SHAPES)}") from None
    _refuse_keys(file, shape, place)
    _refuse_values(file, shape, place)
    channels = len(file.classes) if file.classes else file.channels or shape.channels
    is_text = shape.masking is Masking.SEQUENCE
    made = Modality(
        file.name, shape.kind, file.name, shape.extension, shape.masking,
        TEXT_VOCAB if is_text else 0, file.max_tokens or (_TEXT_TOKENS if is_text else 0),
        channels=channels, classes=file.classes or (), value_range=file.range, unit=file.unit,
    )  # fmt: skip
    if made.name in modality_names() and modality(made.name) != made:
        known = modality(made.name)
        raise ConfigError(
            f"{place}name: {made.name} is known already, and means something else "
            f"({known.kind.value}): take another name"
        )
    try:
        return register(made)
    except ConfigError as error:  # two names with one id
        raise ConfigError(f"{place}name: {error}") from error


def _refuse_name(name: str, place: str) -> None:
    if not _NAME.fullmatch(name):
        better = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_0123456789")
        hint = f", such as {better}" if better else ""
        raise ConfigError(
            f"{place}name: found {name!r}, expected letters, digits and underscores, a letter "
            f"first{hint}"
        )
    if name in _RESERVED or name.startswith("tok_"):
        raise ConfigError(
            f"{place}name: {name} has a meaning of its own in datasets: take another name"
        )


def _refuse_keys(file: ModalityFile, shape: _Shape, place: str) -> None:
    for key in shape.needs:
        if getattr(file, key) is None:
            raise ConfigError(f"{place}{key} is missing: {shape.one} needs it ({_describe(key)})")
    for key in ("channels", "range", "unit", "classes", "max_tokens", "losses"):
        if key in (*shape.needs, *shape.allows) or not getattr(file, key):
            continue
        if key == "channels" and file.channels == shape.channels:
            continue
        having = [name for name, each in _SHAPES.items() if key in (*each.needs, *each.allows)]
        if key == "channels" and shape.channels:
            raise ConfigError(
                f"{place}channels: found {file.channels}, expected {shape.channels}: that is what "
                f"{shape.one} has"
            )
        raise ConfigError(
            f"{place}{key}: found {getattr(file, key)!r}, but {shape.one} has none; {key} is for "
            f"{', '.join(having)}"
        )


def _refuse_values(file: ModalityFile, shape: _Shape, place: str) -> None:
    if file.range is not None:
        try:
            Modality("range", Kind.PLANE, "range", "png", value_range=file.range)
        except ConfigError as error:
            raise ConfigError(f"{place}{error}") from error
    if file.classes is not None:
        twice = sorted({each for each in file.classes if file.classes.count(each) > 1})
        if not 1 <= len(file.classes) <= UNKNOWN_CLASS or twice or not all(file.classes):
            raise ConfigError(
                f"{place}classes: found {len(file.classes)} names"
                f"{f' ({twice[0]!r} twice)' if twice else ''}, expected 1 to {UNKNOWN_CLASS}, each "
                f"once and none empty"
            )
    for name, weight in (file.losses or {}).items():
        if (name == "cross_entropy") is not (shape.kind is Kind.CLASSES):
            raise ConfigError(
                f"{place}losses.{name}: cross_entropy is the loss of classes, and of nothing else"
            )
        if not weight > 0:
            raise ConfigError(f"{place}losses.{name}: found {weight:g}, expected more than 0")


def _describe(key: str) -> str:
    return ModalityFile.model_fields[key].description or key
