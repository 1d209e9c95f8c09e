"""Guidance: predictions under several sets of conditions, summed with weights.

Classifier-free guidance (Ho & Salimans 2021) of all conditions together, or of each by its own
weight, as composed diffusion does (Liu et al. 2022). The head that scores ids is linear, so what is
summed is what the decoder says, and the head is applied once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from fourmill.manifests.errors import UnknownNameError
from fourmill.train.conditions import Conditions, select_inputs, side_by_side
from fourmill.train.config import MaskingConfig
from fourmill.train.counters import LEAST_ALPHA
from fourmill.train.domains import Domains
from fourmill.train.model import FourM
from fourmill.train.progress import say
from fourmill.train.schedules import GenerationStep, guidance_share
from fourmill.train.selection import PADDING, Selection

_SPARE = 1.25  # a CPU computes sides together if padding makes the work no larger than this
_FEW_ROWS = 8  # whose scores a CPU finds faster by a product the other way around
_DRAWS = 2_000
_SELDOM = 1e-3  # of the samples of a training: too few to learn what is there without a condition


@dataclass(frozen=True)
class Side:
    """One set of conditions.

    Attributes:
        base: its weight without guidance; `guided` what full guidance adds.
    """

    conditions: Conditions
    base: float
    guided: float

    def weight(self, step: GenerationStep, number: int) -> float:
        """At step `number` of a grid, counted from 1."""
        return self.base + guidance_share(step, number) * self.guided


def guided_names(step: GenerationStep, conditions: Conditions, made: Collection[str]) -> list[str]:
    """Conditions that some side lacks.

    Args:
        made: what the chain generated before.

    Raises:
        UnknownNameError: a weight of what is no condition here.
    """
    possible = [name for name in conditions.names if name != step.target]
    for name in step.weights:
        if name not in possible:
            raise UnknownNameError(f"condition of {step.target} to weight", name, possible)
    if step.weights:
        return [name for name, weight in step.weights.items() if weight]
    if step.guidance == 1:
        return []
    return [name for name in possible if step.grow or name not in made]


def sides_of(step: GenerationStep, conditions: Conditions, made: Collection[str]) -> list[Side]:
    """The sets of conditions that a step predicts under: one where there is no guidance.

    What is known of the target itself is on all sides.

    Raises:
        UnknownNameError: see `guided_names`.
    """
    names = guided_names(step, conditions, made)
    if not step.weights:
        extra = step.guidance - 1
        sides = [Side(conditions, 1.0, extra)]
        if names:
            sides.append(Side(conditions.without(names), 0.0, -extra))
    else:
        every = [*step.weights]
        sides = [Side(conditions.without(every), 1.0, -sum(step.weights.values()))]
        for name in names:
            others = [each for each in every if each != name]
            sides.append(Side(conditions.without(others), 0.0, step.weights[name]))
    if len(sides) == 1:
        return [replace(sides[0], base=1.0, guided=0.0)]
    numbers = range(1, step.steps + 1)
    return [each for each in sides if any(each.weight(step, number) for number in numbers)]


def predict(
    model: FourM,
    step: GenerationStep,
    sides: Sequence[Side],
    position: Int64[Tensor, "batch asked"],
    number: int = 1,
    read: Int64[Tensor, "batch asked"] | None = None,
) -> Float[Tensor, "batch asked vocab"]:
    """Scores of all ids of the target at some positions.

    Args:
        position: negative ones are padding.
        number: of the step, counted from 1.
        read: of sequences, the tokens before those that are asked for.
    """
    index = model.domains.index(step.target)
    asked = torch.where(position >= 0, index, PADDING)
    nothing = torch.zeros_like(position)
    targets = (asked, position.clamp(min=0), nothing if read is None else read, nothing)
    selections = [select_inputs(model.domains, each.conditions) for each in sides]
    if len(selections) > 1 and _are_better_together(selections):
        together = _asking(side_by_side(selections), targets)
        outputs = list(model(together).chunk(len(sides)))
    else:
        outputs = [model(_asking(each, targets)) for each in selections]
    return score(model, step, [each.weight(step, number) for each in sides], outputs)


def score(
    model: FourM,
    step: GenerationStep,
    weights: Sequence[float],
    outputs: Sequence[Float[Tensor, "*batch dim"]],
) -> Float[Tensor, "*batch vocab"]:
    """Scores of all ids, of what the decoder says on each side."""
    total = outputs[0]
    if len(outputs) > 1 or weights[0] != 1:
        parts = [weight * each.float() for weight, each in zip(weights, outputs, strict=True)]
        total = torch.stack(parts).sum(0)
    rows = total.flatten(0, -2)
    if rows.is_cpu and len(rows) <= _FEW_ROWS:
        scores = (model.head(step.target) @ rows.T).T
        return scores.float().view(*total.shape[:-1], -1)
    return model.logits(step.target, total).float()


def _are_better_together(selections: Sequence[Selection]) -> bool:
    """Whether one pass over all sides is faster than one for each: on a GPU always."""
    slots = [each.input_modality.shape[1] for each in selections]
    on_cpu = selections[0].input_modality.device.type == "cpu"
    return not on_cpu or max(slots) * len(slots) <= _SPARE * sum(slots)


def _asking(selection: Selection, targets: tuple[Tensor, ...]) -> Selection:
    sides = len(selection.input_modality) // len(targets[0])
    modality, position, token, label = (each.repeat(sides, 1) for each in targets)
    return replace(
        selection, target_modality=modality, target_position=position, target_token=token,
        target_label=label,
    )  # fmt: skip


def warn_of_always_given(
    step: GenerationStep, names: Sequence[str], without: Mapping[str, float]
) -> None:
    """Say so if training never showed what is there without a condition.

    Args:
        names: of the conditions that some side lacks.
        without: by modality, see `shares_without`; empty where nothing is known.
    """
    always = [name for name in names if without.get(name, 1.0) < _SELDOM]
    if always:
        say(
            f"warning: {step.target} is guided by {', '.join(always)}, but in training hardly a "
            f"sample came without, so that what the model predicts without is a guess; generate "
            f"with guidance 1, or train with a component of masking.mixture whose inputs give it 0"
        )


def shares_without(domains: Domains, masking: MaskingConfig) -> dict[str, float]:
    """By input, the share of a training's samples that had nothing of it, by the published law.

    What the law `efficient` does with tokens that there is no room for, and labels that samples
    lack, are not counted.
    """
    weights = [component.weight for component in masking.mixture]
    lacking = []
    for component in masking.mixture:
        alphas = [component.inputs.get(each, component.inputs.get("*", 0.0))
                  for each in domains.inputs]  # fmt: skip
        budgets = _drawn_budgets(np.maximum(alphas, LEAST_ALPHA), masking.input_range[1])
        lacking.append((budgets == 0).mean(0))
    shares = np.average(lacking, axis=0, weights=weights)
    return dict(zip(domains.inputs, shares.tolist(), strict=True))


def _drawn_budgets(alpha: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(0)
    budgets = (generator.dirichlet(alpha, _DRAWS) * total).astype(np.int64)
    left = total - budgets.sum(1)  # each goes to the winner of a draw of its own
    winners = generator.dirichlet(alpha, (_DRAWS, len(alpha))).argmax(-1)
    is_used = np.arange(len(alpha)) < left[:, None]
    for number in range(len(alpha)):
        budgets[:, number] += ((winners == number) & is_used).sum(1)
    return budgets
