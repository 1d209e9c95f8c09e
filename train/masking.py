"""The masking law of 4M, for a whole batch at once, on the device, without state.

Budgets come from a mixture of Dirichlet distributions over modalities; grids give random positions,
sequences give spans. Two laws: `faithful` is the published one; `efficient` gives what a modality
cannot use to the grids that have room, so that next to nothing is padding.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking as Law
from fourmill.train.batch import Batch, patches
from fourmill.train.budgets import Budgets, efficient_shares, faithful_budgets, fill
from fourmill.train.config import MaskingConfig, Mixture
from fourmill.train.counters import Keys, hashes, integers, sample_keys, uniforms
from fourmill.train.domains import SEQUENCES, Domains
from fourmill.train.selection import PADDING, Selection, compact
from fourmill.train.spans import Keep, Spans, mask_spans

Columns = tuple[Tensor, ...]
"""chosen, then the values that `compact` moves; each `[batch, columns]`."""


class Masking:
    """Chooses inputs and targets of a batch.

    Args:
        seed: of all draws, together with the ids of samples and their visits.

    Raises:
        ConfigError: a mixture that names no input or no target of the model, or a modality that
            cannot be masked.
    """

    def __init__(self, domains: Domains, config: MaskingConfig, seed: int) -> None:
        for each in domains.modalities:
            if each.masking is Law.EMBEDDING:
                raise ConfigError(f"{each.name}: sequences of vectors cannot be masked yet")
        self.domains = domains
        self.config = config
        self.seed = seed
        self._weights = torch.tensor([each.weight for each in config.mixture]).double()
        self._input_alphas = _alphas(domains, domains.inputs, config.mixture, "inputs")
        self._target_alphas = _alphas(domains, domains.targets, config.mixture, "targets")
        self._keep = torch.tensor(
            [
                [Keep[each.keep_of(name).upper()] for name in domains.names]
                for each in config.mixture
            ]
        )

    def __call__(self, batch: Batch) -> Selection:
        """Inputs and targets: the same for a (sample, visit) whatever else is in the batch."""
        keys = sample_keys(self.seed, batch.sample, batch.visit)
        component = self._draw_component(keys)
        inputs, targets, spans = self._draw(batch, keys, component)
        input_columns, target_columns = [], []
        for index, modality in enumerate(self.domains.modalities):
            if modality.name in spans:
                own = _sequence_columns(spans[modality.name], index)
            else:
                own = self._grid_columns(batch, keys, index, inputs[:, index], targets[:, index])
            input_columns.append(own[0])
            target_columns.append(own[1])
        input_slots = _join(input_columns, self.config.input_range[1])
        target_slots = _join(target_columns, self.config.target_range[1])
        continuous = {
            name: patches(pixels, self.domains.modality(name).patch_size)
            for name, pixels in batch.pixels.items()
        }
        return Selection(*input_slots, *target_slots, continuous)

    def wants_pixels(
        self, sample: Int64[Tensor, " batch"], visit: Int64[Tensor, " batch"]
    ) -> dict[str, Bool[Tensor, " batch"]]:
        """By modality of pixels, which samples may show some: the others need not be decoded.

        It follows from the keys alone. A loader that leaves the others out may call them not
        `valid`: their masks are the same either way.
        """
        keys = sample_keys(self.seed, sample, visit)
        component, total = self._draw_component(keys), self._total_inputs(keys)
        if self.config.law == "faithful":
            is_wanted = self._faithful_inputs(keys, component, total) > 0
        else:
            is_wanted = self._input_shares(keys, component, total) > 0
        return {
            each.name: is_wanted[:, index]
            for index, each in enumerate(self.domains.modalities)
            if each.masking is Law.PIXELS
        }

    def _total_inputs(self, keys: Keys) -> Int64[Tensor, " batch"]:
        return integers(keys, "inputs", *self.config.input_range)

    def _faithful_inputs(self, keys: Keys, component: Tensor, total: Tensor) -> Budgets:
        """Budgets of inputs before any sample is looked at."""
        alpha = self._input_alphas.to(keys.device)[component]
        most = torch.tensor([m.max_tokens for m in self.domains.modalities], device=keys.device)
        return faithful_budgets(keys, "input shares", alpha, total, most.expand(len(keys), -1))

    def _input_shares(
        self, keys: Keys, component: Tensor, total: Tensor
    ) -> Float64[Tensor, "batch modalities"]:
        alpha = self._input_alphas.to(keys.device)[component]
        is_dear = torch.tensor(
            [each.masking is Law.PIXELS for each in self.domains.modalities], device=keys.device
        )
        return efficient_shares(keys, "input shares", alpha, total, is_dear)

    def _draw(
        self, batch: Batch, keys: Keys, component: Tensor
    ) -> tuple[Budgets, Budgets, dict[str, Spans]]:
        """Budgets of grids, for inputs and targets, and masked sequences."""
        device = keys.device
        target_alpha = self._target_alphas.to(device)[component]
        total_in = self._total_inputs(keys)
        total_out = integers(keys, "targets", *self.config.target_range)
        length = self._lengths(batch, keys)
        grid = torch.tensor(
            [each.masking not in SEQUENCES for each in self.domains.modalities], device=device
        )
        if self.config.law == "faithful":
            most = torch.tensor([m.max_tokens for m in self.domains.modalities], device=device)
            room = torch.where(length > 0, most, 0)
            inputs = torch.minimum(self._faithful_inputs(keys, component, total_in), room)
            room = torch.where(grid, room - inputs, room)
            targets = faithful_budgets(keys, "target shares", target_alpha, total_out, room)
            spans = self._mask_sequences(batch, keys, component, inputs, targets)
            return inputs, targets, spans
        input_shares = self._input_shares(keys, component, total_in)
        inputs = fill(torch.zeros_like(length), input_shares, total_in, length)
        room = torch.where(grid, length - inputs, torch.where(length > 0, length + 2, 0))
        target_shares = efficient_shares(
            keys, "target shares", target_alpha, total_out, torch.zeros_like(grid)
        )
        targets = fill(torch.zeros_like(length), target_shares, total_out, room)
        spans = self._mask_sequences(batch, keys, component, inputs, targets)
        used_in, used_out = inputs * grid, targets * grid
        left_in = total_in - used_in.sum(1) - sum(each.input_length for each in spans.values())
        left_out = total_out - used_out.sum(1)
        left_out = left_out - sum((s.target_length - 1).clamp(min=0) for s in spans.values())
        inputs = fill(used_in, input_shares, left_in, (length - used_out) * grid)
        targets = fill(used_out, target_shares, left_out, (length - inputs) * grid)
        return inputs, targets, spans

    def _mask_sequences(
        self, batch: Batch, keys: Keys, component: Tensor, inputs: Budgets, targets: Budgets
    ) -> dict[str, Spans]:
        keep = self._keep.to(keys.device)[component]
        return {
            modality.name: mask_spans(
                keys,
                modality.name,
                self._token(batch, modality.name),
                inputs[:, index],
                targets[:, index],
                keep[:, index],
                in_chunks=modality.masking is Law.CHUNKS,
            )
            for index, modality in enumerate(self.domains.modalities)
            if modality.masking in SEQUENCES
        }

    def _draw_component(self, keys: Keys) -> Int64[Tensor, " batch"]:
        bounds = (self._weights / self._weights.sum()).cumsum(0)[:-1].to(keys.device)
        return torch.searchsorted(bounds, uniforms(keys, "component", 1)[:, 0], right=True)

    def _token(self, batch: Batch, name: str) -> Int64[Tensor, "batch length"]:
        token = batch.tokens[name].long()
        return token * batch.valid[name][:, None] if name in batch.valid else token

    def _lengths(self, batch: Batch, keys: Keys) -> Budgets:
        """Tokens that each sample has of each modality."""
        lengths = []
        for modality in self.domains.modalities:
            if modality.masking in SEQUENCES:
                lengths.append((self._token(batch, modality.name) > 0).sum(1))
                continue
            count = torch.full_like(batch.sample, modality.max_tokens)
            if modality.name in batch.valid:
                count = count * batch.valid[modality.name]
            lengths.append(count)
        return torch.stack(lengths, 1)

    def _grid_columns(
        self, batch: Batch, keys: Keys, index: int, inputs: Tensor, targets: Tensor
    ) -> tuple[Columns, Columns]:
        """A random order of positions: the first are inputs, the next are targets."""
        modality = self.domains.modalities[index]
        position = hashes(keys, f"{modality.name} order", modality.max_tokens).argsort(1)
        column = torch.arange(modality.max_tokens, device=keys.device)
        is_input = column < inputs[:, None]
        is_target = ~is_input & (column < (inputs + targets)[:, None])
        number = torch.full_like(position, index)
        zero = torch.zeros_like(position)
        if modality.masking is Law.PIXELS:
            return (is_input, number, position, zero, position), (is_target & False, *[zero] * 4)
        token = batch.tokens[modality.name].long().gather(1, position)
        return (is_input, number, position, token, zero), (is_target, number, position, zero, token)


def _sequence_columns(spans: Spans, index: int) -> tuple[Columns, Columns]:
    """The decoder reads each token of the target and predicts the one after it."""
    token = spans.input_token
    rank = torch.arange(token.shape[1], device=token.device).expand_as(token)
    chosen = rank < spans.input_length[:, None]
    inputs = (chosen, torch.full_like(token, index), rank, token, torch.zeros_like(token))
    target, label = spans.target_token[:, :-1], spans.target_token[:, 1:]
    place = torch.arange(target.shape[1], device=token.device).expand_as(target)
    chosen = place < spans.target_length[:, None] - 1
    return inputs, (chosen, torch.full_like(target, index), place, target, label)


def _join(columns: Sequence[Columns], slots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chosen, *values = (torch.cat(each, dim=1) for each in zip(*columns, strict=True))
    first, second, third, fourth = compact(chosen, slots, *values, empty=(PADDING, 0, 0, 0))
    return first, second, third, fourth


def _alphas(
    domains: Domains, names: Sequence[str], mixture: Sequence[Mixture], side: str
) -> Float64[Tensor, "components modalities"]:
    rows = []
    for number, component in enumerate(mixture):
        alphas = component.inputs if side == "inputs" else component.targets
        for name in alphas:
            if name != "*":
                domains.index(name)
        row = [
            alphas.get(name, alphas.get("*", 0.0)) if name in names else 0.0
            for name in domains.names
        ]
        if not any(row):
            raise ConfigError(f"masking.mixture.{number}: its {side} name none of the model's")
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
