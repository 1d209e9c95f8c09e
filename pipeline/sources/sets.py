"""Public sets that models are judged by, each from its original layout: `coco:/data/coco`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.pipeline.sources import ade20k, coco, diode, imagenet, nyu
from fourmill.pipeline.sources.base import Source


@dataclass(frozen=True)
class _Set:
    """A set.

    Attributes:
        options: the values that each may have.
    """

    make: Callable[..., Source]
    options: Mapping[str, tuple[str, ...]]


SETS: Mapping[str, _Set] = {
    "ade20k": _Set(ade20k.Ade20kSource, {"split": tuple(ade20k.SPLITS)}),
    "coco": _Set(coco.CocoSource, {"split": tuple(coco.SPLITS)}),
    "diode": _Set(diode.DiodeSource, {"split": diode.SPLITS, "part": diode.PARTS}),
    "imagenet": _Set(imagenet.ImageNetSource, {"split": imagenet.SPLITS}),
    "nyu": _Set(nyu.NyuSource, {"split": tuple(nyu.SPLITS)}),
}


def open_set(text: str) -> Source | None:
    """The source that `NAME:PATH?option=value` means; `None` if it names none of the sets.

    Raises:
        ConfigError: no path, an option that it does not have, or a value that means nothing.
    """
    name, _, rest = text.partition(":")
    found = SETS.get(name)
    if found is None or not rest or rest.startswith("//"):
        return None
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option, value in options.items():
        if option not in found.options:
            raise UnknownNameError(f"option of {name}:PATH", option, found.options)
        if value not in found.options[option]:
            raise UnknownNameError(f"{option} of {name}", value, found.options[option])
    if not path:
        raise ConfigError(f"{text}: no path; write {name}:/where/it/lies")
    return found.make(path.rstrip("/") or path, **options)
