"""The published masking law as one writes it for the worker of a data loader: sample by sample.

Written with torch from the description of the law (Mizrahi et al. 2023), and with nothing of
`fourmill.train`: the vectorised law is measured against it, and tested against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from fourmill.manifests.modalities import Masking as Law
from fourmill.manifests.modalities import Modality
from fourmill.tokenize.vocabulary import NUM_SENTINELS, sentinel

Alphas = Mapping[str, float]

_GRIDS = (Law.PIXELS, Law.IMAGE)


@dataclass(frozen=True)
class Masked:
    """What is chosen of one modality of one sample: places of grids, tokens of sequences."""

    inputs: Tensor
    targets: Tensor


class PlainMasking:
    """Masks one sample after another, with torch's own random numbers.

    Args:
        mixture: alphas of inputs and of targets by modality, each pair as likely; what is not named
            has alpha 0.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        mixture: Sequence[tuple[Alphas, Alphas]],
        input_tokens: int = 128,
        target_tokens: int = 128,
    ) -> None:
        self.modalities = sorted(modalities, key=lambda each: each.name)
        self.input_tokens, self.target_tokens = input_tokens, target_tokens
        self._mixture = [
            [
                Dirichlet(
                    torch.tensor([alphas.get(each.name, 0.0) for each in self.modalities])
                    .double()
                    .clamp(min=1e-9)
                )
                for alphas in pair
            ]
            for pair in mixture
        ]

    def __call__(self, sample: Mapping[str, Tensor]) -> dict[str, Masked]:
        """Inputs and targets of each modality."""
        inputs, targets = self.budgets()
        masked = {}
        for each, seen, asked in zip(self.modalities, inputs, targets, strict=True):
            if each.masking in _GRIDS:
                masked[each.name] = self.places(each.max_tokens, seen, asked)
            else:
                masked[each.name] = self.spans(sample[each.name], seen, asked)
        return masked

    def packed(self, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The slots of one sample, which a collator stacks and a model embeds.

        Returns:
            `input_modality`, `input_position`, `input_token` and so on, with the meanings that
            they have in `train/selection.py`.
        """
        inputs, targets = [], []
        for number, (name, masked) in enumerate(self(sample).items()):
            seen, asked = masked.inputs, masked.targets
            if self.modalities[number].masking in _GRIDS:
                token = sample.get(name)
                own = torch.zeros_like(seen) if token is None else token[seen]
                label = torch.zeros_like(asked) if token is None else token[asked]
                read, seen_at, asked_at = torch.zeros_like(asked), seen, asked
            else:
                own, read, label = seen, asked[:-1], asked[1:]
                seen_at, asked_at = torch.arange(len(own)), torch.arange(len(label))
            inputs.append((torch.full_like(own, number), seen_at, own))
            targets.append((torch.full_like(label, number), asked_at, read, label))
        fields = ("modality", "position", "token", "label")
        packed = {}
        for side, parts, slots in (
            ("input", inputs, self.input_tokens),
            ("target", targets, self.target_tokens),
        ):
            for field, values in zip(fields, zip(*parts, strict=True), strict=False):
                column = torch.full((slots,), -1 if field == "modality" else 0)
                filled = torch.cat(values)
                column[: len(filled)] = filled
                packed[f"{side}_{field}"] = column
        return packed

    def budgets(self) -> tuple[list[int], list[int]]:
        """Tokens of each modality."""
        inputs_of, targets_of = self._mixture[int(torch.randint(len(self._mixture), ()))]
        inputs = _budget(inputs_of, self.input_tokens)
        targets = _budget(targets_of, self.target_tokens)
        for number, each in enumerate(self.modalities):
            inputs[number] = min(inputs[number], each.max_tokens)
            taken = inputs[number] if each.masking in _GRIDS else 0
            targets[number] = min(targets[number], each.max_tokens - taken)
        return inputs, targets

    def places(self, count: int, inputs: int, targets: int) -> Masked:
        """Of a grid, in a random order: the first are inputs, the next are targets."""
        order = torch.rand(count).argsort()
        return Masked(order[:inputs], order[inputs : inputs + targets])

    def spans(self, padded: Tensor, input_budget: int, target_budget: int) -> Masked:
        """Spans with sentinels; while an input is too long, its mask is drawn again, with a lower
        probability to keep."""
        token = padded[padded > 0]
        if not input_budget:
            _, target = _mask(token, torch.zeros(len(token), dtype=torch.bool))
            return Masked(token[:0], _cut(target, target_budget))
        keep = float(torch.rand(()))
        while True:
            seen, target = _mask(token, torch.rand(len(token)) < keep)
            if len(seen) <= input_budget:
                return Masked(seen, _cut(target, target_budget))
            keep *= 0.9


def _budget(law: Dirichlet, total: int) -> list[int]:
    counts = (law.sample() * total).long()
    for _ in range(total - int(counts.sum())):
        counts[law.sample().argmax()] += 1
    numbers: list[int] = counts.tolist()
    return numbers


def _mask(token: Tensor, is_kept: Tensor) -> tuple[Tensor, Tensor]:
    """The input with a sentinel for each span, and the spans."""
    seen: list[int] = []
    asked: list[int] = []
    runs, in_run = 0, False
    for id, kept in zip(token.tolist(), is_kept.tolist(), strict=True):
        if kept:
            seen.append(id)
        elif in_run:
            asked.append(id)
        else:
            runs += 1
            seen.append(sentinel(runs))
            asked.extend((sentinel(runs), id))
        in_run = not kept
    asked.append(sentinel(runs + 1))
    return torch.tensor(seen, dtype=torch.int64), torch.tensor(asked)


def _cut(target: Tensor, budget: int) -> Tensor:
    """Of a target that is too long, the part from a sentinel on."""
    if len(target) <= budget:
        return target
    is_start = (target >= sentinel(0)) & (target < sentinel(0) + NUM_SENTINELS)
    starts = is_start.nonzero()[:, 0]
    start = int(starts[torch.randint(max(1, len(starts) - 1), ())])
    if len(target) - start < budget:
        start = int(starts[len(target) - starts <= budget][0])
    return target[start : start + budget]
