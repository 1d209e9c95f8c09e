"""Predicted features as what they are for: the class of a sample by those of its neighbours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.train.evaluation.knn import knn_accuracy

_FIELDS = ("class_name", "class", "label", "name")


class Neighbours:
    """Features of samples whose class is known, and of those whose class is asked for.

    All features are kept, 4 bytes a number.
    """

    def __init__(self) -> None:
        self._known: list[tuple[NDArray[np.float32], str]] = []
        self._asked: list[tuple[NDArray[np.float32], str]] = []

    def learn(self, features: Label, label: Label) -> None:
        """Know one more sample."""
        self._known.append((np.asarray(features, np.float32), class_of(label)))

    def ask(self, features: Label, label: Label) -> None:
        """Ask for the class of one more sample."""
        self._asked.append((np.asarray(features, np.float32), class_of(label)))

    def accuracy(self) -> dict[str, float]:
        """`knn_top1` and `knn_top5` of those that were asked.

        Raises:
            ConfigError: no known samples.
        """
        if not self._known or not self._asked:
            raise ConfigError("k-NN: no samples whose class is known")
        known, known_names = zip(*self._known, strict=True)
        asked, asked_names = zip(*self._asked, strict=True)
        return knn_accuracy(np.stack(known), known_names, np.stack(asked), asked_names)


def class_of(label: Label) -> str:
    """The class that a label names: a text, a structure with a `class_name`, `class`, `label` or
    `name`, or a list of such, the likeliest first.

    Raises:
        ConfigError: it names none.

    >>> class_of([{"class_name": "tabby", "score": 0.8}]), class_of({"label": 281})
    ('tabby', '281')
    """
    found: Any = label[0] if isinstance(label, list) and label else label
    if isinstance(found, dict):
        found = next((found[name] for name in _FIELDS if name in found), None)
    if isinstance(found, str) and found.strip():
        return found.strip()
    if isinstance(found, int):
        return str(found)
    raise ConfigError(
        f"no class in {str(label)[:80]!r}: expected a text, or a structure with {_FIELDS[0]!r}"
    )
