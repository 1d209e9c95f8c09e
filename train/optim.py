"""AdamW (Loshchilov & Hutter 2019), and the learning rate over the steps."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class OptimizerConfig(Protocol):
    """What the configuration of any training says of its optimizer."""

    @property
    def steps(self) -> int:
        """Of the whole training."""

    @property
    def lr(self) -> float:
        """The highest learning rate."""

    @property
    def min_lr(self) -> float:
        """The learning rate at the end."""

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""

    @property
    def weight_decay(self) -> float:
        """Of all parameters with two dimensions."""

    @property
    def betas(self) -> tuple[float, float]:
        """Of AdamW."""


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on all that has two dimensions, embeddings included.

    Norms and biases are not decayed; what is frozen is left out.
    """
    parameters = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=True)


def lr_at(step: int, config: OptimizerConfig) -> float:
    """The learning rate of a step, counted from 0: a linear rise, then half a cosine.

    >>> from fourmill.train.config import TrainConfig
    >>> config = TrainConfig(root="r", tokenizers="t", out="o", steps=100, warmup=10, lr=1.0)
    >>> [round(lr_at(step, config), 3) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    warmup = min(config.warmup, config.steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.min_lr + (config.lr - config.min_lr) * cosine


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
