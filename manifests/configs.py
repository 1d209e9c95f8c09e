"""Configuration files: YAML in, pydantic models out, every mistake told in a line of its own."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fourmill.manifests.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not YAML, not a mapping.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of options")
    return loaded


def assign(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one option by its dotted name, `model.dim`."""
    *parents, last = dotted.split(".")
    for part in parents:
        values[part] = dict(values.get(part) or {})
        values = values[part]
    values[last] = value


def assignments(words: Sequence[str], section: str = "") -> dict[str, Any]:
    """What `--set` was given: `model.dim=384` as {"model.dim": 384}.

    Args:
        section: that may stand before names, and is taken off.

    Raises:
        ConfigError: no assignment, or a value that is not YAML.
    """
    values = {}
    for each in words:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--set {each}: expected name=value")
        try:
            values[name.removeprefix(f"{section}.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {each}: the value is not YAML") from error
    return values


def load(model: type[Config], path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """A model of a whole YAML file.

    Args:
        overrides: options by dotted names, which win over the file's.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest is named), a wrong value.
    """
    values = read_yaml(path)
    for dotted, value in (overrides or {}).items():
        assign(values, dotted, value)
    return validate(model, values, str(path))


def validate(
    model: type[Config], values: Mapping[str, Any], place: str, section: str = ""
) -> Config:
    """A model of these values.

    Args:
        place: the file that they are of, for messages; `section`, too.

    Raises:
        ConfigError: an unknown key (the nearest is named), a missing one, a wrong value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, place, model, section))) from error


def _explain(error: ValidationError, place: str, model: type[BaseModel], section: str) -> list[str]:
    lines = []
    for each in error.errors():
        dotted = ".".join(map(str, (section, *each["loc"]) if section else each["loc"]))
        if each["type"] == "extra_forbidden":
            known = _known_keys(model, each["loc"][:-1])
            nearest = difflib.get_close_matches(str(each["loc"][-1]), known, n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
            lines.append(f"{place}: unknown key {dotted!r}; {hint}")
        elif each["type"] == "missing":
            lines.append(f"{place}: {dotted} is missing")
        else:
            lines.append(f"{place}: {dotted}: {each['msg']} (found {each['input']!r})")
    return lines


def _known_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in path:
        if isinstance(part, str) and issubclass(current, BaseModel):
            if part in current.model_fields:
                current = _inner_model(current.model_fields[part].annotation)
        elif isinstance(part, str):
            break
    return list(current.model_fields) if issubclass(current, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    for each in getattr(annotation, "__args__", ()):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return annotation
