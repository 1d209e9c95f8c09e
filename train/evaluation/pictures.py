"""Pictures: beside the very picture, and as a set beside a set (FID)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourmill.manifests.labels import Label
from fourmill.tokenize.metrics import psnr, ssim
from fourmill.train.evaluation.metric import Means, Metric, Scores

_LEAST = 8  # pictures of which a distance between sets is told
_REMEMBERED = 6  # pictures: a truth, the guess, and predictions of who is judged


@dataclass(frozen=True)
class FeatureNetwork:
    """What a distance between sets of pictures is measured by.

    Attributes:
        name: as the metric's name has it, `fid_<name>`.
        module: uint8 `[B, 3, H, W]` → features `[B, D]`; `num_features` is D.
    """

    name: str
    module: Any


class PictureMetric(Metric):
    """`psnr` in decibels and `ssim`, means over pictures; and `fid_<network>` of them all.

    The Frechet distance keeps one D x D matrix a side. It is larger for few pictures than for many:
    only values of as many pictures and of one network may be compared.

    Args:
        network: for the Frechet distance; without one there is none.
    """

    headline = "psnr"

    def __init__(self, network: FeatureNetwork | None = None) -> None:
        self._means = Means()
        self._count = 0
        self._network = network
        self._distance = _frechet(network) if network is not None else None

    def add(self, truth: Label, predicted: Label) -> Scores:
        ours, theirs = (_tensor(each) for each in (truth, predicted))
        values = [each.float() / 127.5 - 1 for each in (theirs, ours)]
        scores = {"psnr": psnr(*values), "ssim": ssim(*values)}
        self._means.add(scores)
        self._count += 1
        if self._distance is not None:
            with torch.inference_mode():
                self._distance.update(ours, real=True)
                self._distance.update(theirs, real=False)
        return scores

    def totals(self) -> Scores:
        found = self._means.result()
        if self._network is None or self._distance is None:
            return found
        is_told = self._count >= _LEAST
        distance = float(self._distance.compute()) if is_told else math.nan
        return found | {f"fid_{self._network.name}": distance}


def _frechet(network: FeatureNetwork) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=network.module)


class Remembering(nn.Module):
    """A network that knows the last pictures again: a truth is compared with several predictions,
    and one guess with several truths."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self.num_features = network.num_features
        self._last: list[tuple[Tensor, Tensor]] = []

    def forward(self, pictures: Tensor) -> Tensor:
        for number, (known, found) in enumerate(self._last):
            if torch.equal(known, pictures):
                self._last.append(self._last.pop(number))
                return found
        features: Tensor = self._network(pictures)
        self._last = [*self._last[1 - _REMEMBERED :], (pictures, features)]
        return features


def _tensor(label: Label) -> Tensor:
    """uint8 `[1, 3, H, W]`."""
    assert isinstance(label, np.ndarray)
    return torch.from_numpy(np.ascontiguousarray(label)).permute(2, 0, 1)[None]
