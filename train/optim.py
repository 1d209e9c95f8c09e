"""Optimizers, and the learning rate over the steps.

AdamW (Loshchilov & Hutter 2019) for all, or Muon (Jordan et al. 2024) for the matrices of blocks,
scaled so that both take one learning rate (Liu et al. 2025).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError
from fourmill.train.tensors import placed_as

Schedule = Literal["cosine", "wsd", "inverse_sqrt"]

_MUON_MOMENTUM = 0.95
_MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")
"""What AdamW (the first two) and Muon (the last) remember of each parameter."""


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
    def schedule(self) -> Schedule:
        """Of the learning rate after the warm-up."""

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""

    @property
    def cooldown(self) -> int:
        """Last steps, in which the schedules that do not fall by themselves fall."""

    @property
    def weight_decay(self) -> float:
        """Of all parameters with two dimensions."""

    @property
    def betas(self) -> tuple[float, float]:
        """Of AdamW."""


class Optimizers:
    """The optimizers of a training, which step together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = tuple(parts)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for each in self._parts:
            each.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """One step, at a learning rate."""
        for each in self._parts:
            for group in each.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            each.step()

    def moments(self, model: nn.Module) -> dict[str, Tensor]:
        """What is remembered of the gradients, by parameter."""
        found: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            for part in self._parts:
                state = part.state.get(parameter, {})
                found |= {f"{each}.{name}": state[each] for each in _MOMENTS if each in state}
        return found

    def restore(self, model: nn.Module, moments: Mapping[str, Tensor], step: int) -> None:
        """Set what `moments` gave.

        Raises:
            ConfigError: they are of another model or optimizer; nothing was changed.
        """
        owners = {id(p): part for part in self._parts for p in _parameters_of(part)}
        named = dict(model.named_parameters())
        places = {}
        for key in moments:
            moment, _, name = key.partition(".")
            parameter = named.get(name)
            owner = owners.get(id(parameter))
            is_muons = isinstance(owner, torch.optim.Muon)
            if parameter is None or owner is None or is_muons != (moment == "momentum_buffer"):
                raise ConfigError("the optimizer's state is not that of this model and optimizer")
            places[key] = (moment, parameter, owner)
        for key, (moment, parameter, owner) in places.items():
            kept = owner.state[parameter]
            if not isinstance(owner, torch.optim.Muon):
                kept["step"] = torch.tensor(float(step), device=parameter.device)
            kept[moment] = placed_as(parameter, moments[key])


def make_optimizers(
    model: nn.Module,
    config: OptimizerConfig,
    muon: Callable[[str], bool] | None = None,
    lr_scale: Callable[[str], float] | None = None,
) -> Optimizers:
    """Fused AdamW; weight decay on all that has two dimensions, embeddings included.

    Norms and biases are not decayed; what is frozen is left out.

    Args:
        muon: which matrices, by name, Muon has rather than AdamW.
        lr_scale: of a parameter, by name, what its learning rate is multiplied by.
    """
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    matrices = [each for name, each in trained if muon and each.ndim == 2 and muon(name)]
    taken = {id(each) for each in matrices}
    by_scale: dict[float, list[Tensor]] = {}
    for name, each in trained:
        if id(each) not in taken:
            by_scale.setdefault(1.0 if lr_scale is None else lr_scale(name), []).append(each)
    groups: list[dict[str, Any]] = [
        {"params": chosen, "weight_decay": decay, "lr_scale": scale}
        for scale, rest in sorted(by_scale.items())
        for chosen, decay in (
            ([p for p in rest if p.ndim > 1], config.weight_decay),
            ([p for p in rest if p.ndim <= 1], 0.0),
        )
    ]
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=True)
    ]
    if matrices:
        parts.append(
            torch.optim.Muon(
                matrices, lr=config.lr, weight_decay=config.weight_decay,
                momentum=_MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    return Optimizers(parts)


def lr_at(step: int, config: OptimizerConfig) -> float:
    """The learning rate of a step, counted from 0: a linear rise, then a schedule.

    `cosine` falls as half a cosine to the end; `wsd` (warm-up, stable, decay) stays, and
    `inverse_sqrt` falls as the root of the step, until both fall in `cooldown` steps.

    >>> from fourmill.train.config import TrainConfig
    >>> def rates(schedule, cooldown=0):
    ...     config = TrainConfig(
    ...         root="r", tokenizers="t", out="o", steps=100, warmup=10, lr=1.0,
    ...         schedule=schedule, cooldown=cooldown,
    ...     )
    ...     return [round(lr_at(step, config), 3) for step in (0, 9, 40, 55, 89, 99)]
    >>> rates("cosine")
    [0.1, 1.0, 0.75, 0.5, 0.036, 0.0]
    >>> rates("wsd", cooldown=20)
    [0.1, 1.0, 1.0, 1.0, 0.5, 0.0]
    >>> rates("inverse_sqrt", cooldown=20)
    [0.1, 1.0, 0.494, 0.423, 0.177, 0.0]
    """
    warmup = min(config.warmup, config.steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "cosine":
        progress = (step - warmup) / max(1, config.steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return config.min_lr + (config.lr - config.min_lr) * cosine
    begins = max(warmup, config.steps - config.cooldown)  # of the cooldown
    held = min(step, begins)
    root = math.sqrt(max(1, warmup) / (held + 1)) if config.schedule == "inverse_sqrt" else 1.0
    highest = max(config.min_lr, config.lr * root)
    if step < begins:
        return highest
    left = (config.steps - 1 - step) / (config.steps - begins)
    return config.min_lr + (highest - config.min_lr) * left


def _parameters_of(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
