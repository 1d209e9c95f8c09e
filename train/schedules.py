"""How a modality is generated: in which order, in how many steps, how boldly."""

import math
from dataclasses import dataclass
from typing import Literal

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking, Modality

Scheme = Literal["maskgit", "roar", "autoregressive"]


@dataclass(frozen=True)
class GenerationStep:
    """How one target is generated; a chain of them generates several, each seen by the next.

    Attributes:
        scheme: `maskgit` predicts all that is missing and keeps the surest (Chang et al. 2022);
            `roar` predicts random positions (Mizrahi et al. 2023); `autoregressive` is for text.
        steps: in which a grid is filled.
        schedule: how many positions a step fills: `cosine` few, many, few; or `linear`.
        temperature: 0 takes the likeliest token.
        cooling: the temperature falls linearly to nothing over the steps.
        top_k: only the likeliest ids, 0 for all.
        top_p: only the likeliest ids that together have this probability.
        guidance: of the conditions; 1 is none, more follows them more closely (Ho & Salimans 2021).
    """

    target: str
    scheme: Scheme
    steps: int = 1
    schedule: Literal["cosine", "linear"] = "cosine"
    temperature: float = 0.0
    cooling: bool = False
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"generation of {self.target}: expected at least one step, a temperature and top_k "
                f"of 0 or more, and top_p above 0 and up to 1; found {self}"
            )


def default_step(modality: Modality) -> GenerationStep:
    """What works for most: one bold stroke for grids, word by word for text."""
    if modality.masking is Masking.IMAGE:
        return GenerationStep(modality.name, "maskgit", steps=4)
    return GenerationStep(modality.name, "autoregressive")


def filled_share(step: GenerationStep, number: int) -> float:
    """Share of a grid's positions that is filled after step `number`, counted from 1.

    >>> maskgit = GenerationStep("depth", "maskgit", steps=8)
    >>> [round(196 * filled_share(maskgit, number)) for number in range(1, 9)]
    [7, 29, 61, 98, 135, 167, 189, 196]
    """
    progress = number / step.steps
    return 0.5 - 0.5 * math.cos(math.pi * progress) if step.schedule == "cosine" else progress


def temperature_at(step: GenerationStep, number: int) -> float:
    """The temperature of step `number`, counted from 1."""
    return step.temperature * (1 - (number - 1) / step.steps if step.cooling else 1)
