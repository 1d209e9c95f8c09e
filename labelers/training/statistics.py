"""Guesses that look at no image: what is usual at each height of a picture, or everywhere."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float64

from fourmill.labelers.training.metrics import Guess, Truth
from fourmill.labelers.training.views import SIZE, UNKNOWN_CLASS, UNKNOWN_NORMAL
from fourmill.manifests.modalities import COARSE_CLASSES


class RowStatistics:
    """Mean disparity, mean normal and most frequent class of each row of the training images.

    Disparity is averaged with each image's own scale and shift taken out, as the errors take it out
    again.
    """

    def __init__(self, truths: Iterable[Truth]) -> None:
        disparity: Float64[np.ndarray, " rows"] = np.zeros(SIZE)
        normals: Float64[np.ndarray, "rows 3"] = np.zeros((SIZE, 3))
        classes: Float64[np.ndarray, "rows classes"] = np.zeros((SIZE, len(COARSE_CLASSES)))
        for truth in truths:
            if truth.depth.min() > 0:
                inverse = 1 / truth.depth.astype(np.float64)
                disparity += ((inverse - inverse.mean()) / (inverse.std() + 1e-6)).mean(axis=1)
            known = (truth.normals != UNKNOWN_NORMAL).any(axis=-1, keepdims=True)
            normals += np.where(known, truth.normals / 127.5 - 1, 0).sum(axis=1)
            for row, labels in enumerate(truth.classes):
                labels = labels[labels != UNKNOWN_CLASS]
                classes[row] += np.bincount(labels, minlength=len(COARSE_CLASSES))
        self._disparity, self._normals, self._classes = disparity, normals, classes

    def by_height(self) -> Guess:
        """The guess that knows where in the picture a pixel is."""
        return self._guess(self._disparity, self._normals, self._classes)

    def constant(self) -> Guess:
        """The guess that knows nothing."""
        everywhere = np.ones((SIZE, 1))
        return self._guess(
            np.zeros(SIZE),
            everywhere * self._normals.sum(axis=0),
            everywhere * self._classes.sum(axis=0),
        )

    @staticmethod
    def _guess(
        disparity: Float64[np.ndarray, " rows"],
        normals: Float64[np.ndarray, "rows 3"],
        classes: Float64[np.ndarray, "rows classes"],
    ) -> Guess:
        units = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        across = np.ones((1, SIZE))
        return Guess(
            (disparity[:, None] * across).astype(np.float32),
            (units[:, None] * across[..., None]).astype(np.float32),
            np.repeat(classes.argmax(axis=1).astype(np.uint8)[:, None], SIZE, axis=1),
        )


def always(guess: Guess) -> Iterator[Guess]:
    """The same for every image."""
    while True:
        yield guess
