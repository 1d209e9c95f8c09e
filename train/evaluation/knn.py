"""Classification by the nearest neighbours of features, weighted (Wu et al. 2018).

Shapes: N known samples, Q asked ones, C numbers of a feature.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""As published for the features of DINOv2 and 4M-21."""

_CHUNK = 512  # asked samples at a time


def knn_votes(
    known: Float[np.ndarray, "N C"],
    labels: Int64[np.ndarray, " N"],
    asked: Float[np.ndarray, "Q C"],
    classes: int,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "Q classes"]:
    """What the nearest known samples, by cosine, vote for; each weighs exp(cosine / temperature).

    Raises:
        ConfigError: no known samples.
    """
    if not len(known):
        raise ConfigError("k-NN: no known samples whose class could be taken")
    bank = F.normalize(torch.from_numpy(known).float(), dim=1)
    classes_of = torch.from_numpy(labels)
    votes = torch.zeros(len(asked), classes)
    for start in range(0, len(asked), _CHUNK):
        rows = slice(start, start + _CHUNK)
        cosines = F.normalize(torch.from_numpy(asked[rows]).float(), dim=1) @ bank.T
        nearest, places = cosines.topk(min(neighbours, len(bank)), dim=1)
        weights = (nearest / temperature).exp()
        votes[rows].scatter_add_(1, classes_of[places], weights)
    return votes


def knn_accuracy(
    known: Float[np.ndarray, "N C"],
    known_names: Sequence[str],
    asked: Float[np.ndarray, "Q C"],
    asked_names: Sequence[str],
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[str, float]:
    """`knn_top1` and `knn_top5`: how often the class is the first, or among the first five, of
    those that the nearest known samples vote for.

    Raises:
        ConfigError: no known samples.
    """
    names = sorted({*known_names, *asked_names})
    numbers = {name: number for number, name in enumerate(names)}
    labels = _numbered(known_names, numbers)
    votes = knn_votes(known, labels, asked, len(names), neighbours, temperature)
    truth = torch.from_numpy(_numbered(asked_names, numbers))
    best = votes.topk(min(5, len(names)), dim=1)
    hits = (best.indices == truth[:, None]) & (best.values > 0)  # nobody's vote is no vote
    return {
        "knn_top1": float(hits[:, 0].double().mean()),
        "knn_top5": float(hits.any(1).double().mean()),
    }


def _numbered(names: Sequence[str], numbers: dict[str, int]) -> NDArray[np.int64]:
    return np.array([numbers[each] for each in names], np.int64)
