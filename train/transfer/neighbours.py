"""k nearest neighbours that vote by similarity: how 4M-21 judges features (k 20, temperature 0.07).

Shapes: N samples with known classes, M others, D numbers of a feature, K classes.
"""

import numpy as np
from jaxtyping import Float, Float32, Int64

_ROWS = 1024  # that are compared at once

NEIGHBOURS, TEMPERATURE = 20, 0.07


def vote(
    known: Float32[np.ndarray, "N D"],
    classes: Int64[np.ndarray, " N"],
    asked: Float32[np.ndarray, "M D"],
    num_classes: int,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Float[np.ndarray, "M K"]:
    """Votes for each class: each of the nearest votes with exp(cosine / temperature).

    Args:
        neighbours: as many as there are, if there are fewer.
    """
    ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True).clip(min=1e-12)
                    for each in (known, asked))  # fmt: skip
    count = min(neighbours, len(ours))
    votes = np.zeros((len(theirs), num_classes))
    for start in range(0, len(theirs), _ROWS):
        cosine = theirs[start : start + _ROWS] @ ours.T
        # the order of equals is that of the samples
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        weight = np.exp(np.take_along_axis(cosine, nearest, axis=1) / temperature)
        rows = np.arange(start, start + len(cosine))[:, None]
        np.add.at(votes, (rows, classes[nearest]), weight)
    return votes
