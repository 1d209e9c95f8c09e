"""Predicted features as what they are for: the class of a sample by those of its neighbours."""

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.train.evaluation.knn import knn_accuracy


class Neighbours:
    """Features of samples whose class is known, and of those whose class is asked for.

    All features are kept, 4 bytes a number.
    """

    def __init__(self) -> None:
        self._known: list[tuple[NDArray[np.float32], str]] = []
        self._asked: list[tuple[NDArray[np.float32], str]] = []

    def learn(self, features: Label, name: str) -> None:
        """Know one more sample, and its class."""
        self._known.append((np.asarray(features, np.float32), name))

    def ask(self, features: Label, name: str) -> None:
        """Ask for the class of one more sample, which is this one."""
        self._asked.append((np.asarray(features, np.float32), name))

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
