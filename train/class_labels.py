"""The class of a sample, from whatever modality says it. Nothing here needs torch.

`caption` takes the whole text; `source.file` a place in a structure; `imagenet.0.class_name` goes
through a list. Where the place is a structure it is its name that counts, and of a list the first,
which is the likeliest: `imagenet` says the same.
"""

from dataclasses import dataclass
from typing import Any

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label

_NAMES = ("class_name", "class", "label", "name")


@dataclass(frozen=True)
class ClassLabel:
    """Where classes are written.

    Attributes:
        path: from a label of the modality to the class in it; empty for the label itself.
    """

    modality: str
    path: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str) -> "ClassLabel":
        """As users write it: a modality, and after points a place in it."""
        modality, *path = text.split(".")
        return ClassLabel(modality, tuple(path))

    def __str__(self) -> str:
        return ".".join((self.modality, *self.path))

    def of(self, label: Label | None) -> str | None:
        """The class that a label names; `None` where it says nothing.

        Raises:
            ConfigError: what is there is no class; says which places there are.

        >>> ClassLabel.parse("imagenet").of([{"class_name": "tabby", "score": 0.8}])
        'tabby'
        >>> ClassLabel.parse("source.size.0").of({"file": "a/b.jpg", "size": [640, 480]})
        '640'
        """
        found: Any = label
        for part in self.path:
            if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, dict):
                found = found.get(part)
            else:
                return None
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, dict) and not found.keys().isdisjoint(_NAMES):
            found = next(found[name] for name in _NAMES if name in found)
        if isinstance(found, str):
            return found.strip() or None
        if isinstance(found, int | float):
            return str(found)
        if found is None or (isinstance(found, list | dict) and not found):
            return None
        raise ConfigError(self._no_class(found))

    def _no_class(self, found: Any) -> str:
        places = [f"{self}.{each}" for each in sorted(found)] if isinstance(found, dict) else []
        hint = f"; name a place in it: {', '.join(places)}" if places else ""
        return (
            f"{self}: found {type(found).__name__}, expected a text, a number, or a structure with "
            f"{_NAMES[0]!r} to be a class{hint}"
        )
