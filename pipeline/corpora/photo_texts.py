"""Captions and credits of the photographs that come without: `photo_texts.yaml`."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Text:
    """What is known of one photograph.

    Attributes:
        place: whether it shows a landscape or a room rather than a thing, a person or an animal.
    """

    path: str
    caption: str
    creator: str
    licence: str
    place: bool = False


@dataclass(frozen=True)
class Shelf:
    """The photographs of one package, below a folder of it."""

    package: str
    folder: str
    texts: tuple[Text, ...]


@lru_cache(maxsize=2)
def shelves(kind: str) -> tuple[Shelf, ...]:
    """Packages of a kind: `installed` with fourmill, or from `debian`."""
    data = yaml.safe_load((Path(__file__).parent / "photo_texts.yaml").read_text("utf-8"))
    return tuple(
        Shelf(each["package"], each["folder"], tuple(Text(**text) for text in each["photos"]))
        for each in data[kind]
    )
