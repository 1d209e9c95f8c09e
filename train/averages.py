"""Averaged weights: what a training's weights have been lately (Polyak & Juditsky 1992)."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def follow_average(
    averaged: Sequence[Tensor], current: Sequence[Tensor], decay: float, step: int
) -> None:
    """Move averages towards the weights after a step, in place.

    Args:
        decay: what is kept of the averages; younger than they remember, they are the mean of what
            there was.
        step: counted from 0.
    """
    kept = min(decay, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(averaged), list(current), 1 - kept)
