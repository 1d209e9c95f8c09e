"""The masking law of 4M, for a whole batch at once, on the device, without state.

Budgets come from a mixture of Dirichlet distributions over modalities; grids give random positions,
sequences give spans. Two laws: `faithful` is the published one; `efficient` gives what a modality
cannot use to the grids that have room, so that next to nothing is padding.

On a GPU no value is looked at on the host, and all shapes follow from those of the batch: nothing
waits, and a compiler sees one graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float64, Int32, Int64, Integer
from torch import Tensor
from torch.nn import functional

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking as Law
from fourmill.train.batch import Batch, patches
from fourmill.train.budgets import Budgets, efficient_shares, faithful_budgets, fill, winning_odds
from fourmill.train.config import MaskingConfig, Mixture
from fourmill.train.counters import Keys, integers, sample_keys, split, streams, uniforms
from fourmill.train.domains import SEQUENCES, Domains
from fourmill.train.grids import random_orders
from fourmill.train.selection import Continuous, Selection
from fourmill.train.slots import Slots, deal
from fourmill.train.spans import FIRST_ID, Keep, Spans, mask_spans


class Masking:
    """Chooses inputs and targets of a batch.

    Args:
        seed: of all draws, together with the ids of samples and their visits.

    Raises:
        ConfigError: a mixture that names no input or no target of the model.
    """

    def __init__(self, domains: Domains, config: MaskingConfig, seed: int) -> None:
        self.domains = domains
        self.config = config
        self.seed = seed
        grids = [each for each in domains.modalities if each.masking not in SEQUENCES]
        # those with tokens first, so that a place and its token stand in one column
        self._grids = sorted(grids, key=lambda each: (each.masking is Law.PIXELS, each.max_tokens))
        self._sequences = [each for each in domains.modalities if each.masking in SEQUENCES]
        self._tables = {torch.device("cpu"): self._make_tables()}

    def __call__(self, batch: Batch) -> Selection:
        """Inputs and targets: the same for a (sample, visit) whatever else is in the batch."""
        keys = sample_keys(self.seed, batch.sample, batch.visit)
        inputs, targets, spans = self._draw(batch, keys)
        sizes = [each.max_tokens for each in self._grids]
        order = random_orders(split(keys, self._on(keys.device)["grids"]), sizes)
        drawn = _Drawn(inputs, targets, spans, order, self._grid_tokens(batch))
        return Selection(
            *self._input_slots(drawn), *self._target_slots(drawn), self._continuous(batch)
        )

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

    def _draw(self, batch: Batch, keys: Keys) -> tuple[Budgets, Budgets, Spans]:
        """How many slots each modality gets, for inputs and targets, and masked sequences."""
        tables = self._on(keys.device)
        component = self._draw_component(keys)
        token = self._sequence_tokens(batch)
        length = self._lengths(batch, token)
        if self.config.law == "faithful":
            return self._draw_faithful(keys, component, token, length)
        total_in, total_out = self._total_inputs(keys), self._total_targets(keys)
        is_grid, is_target = tables["is_grid"], tables["is_target"]
        nothing = torch.zeros_like(length)
        input_shares = self._input_shares(keys, component, total_in)
        inputs = fill(nothing, input_shares, total_in, length)
        room = torch.where(is_grid, length - inputs, torch.where(length > 0, length + 2, 0))
        alpha = tables["target_alpha"][component]
        target_shares = efficient_shares(
            keys, "target shares", alpha, total_out, torch.zeros_like(is_grid)
        )
        targets = fill(nothing, target_shares, total_out, room * is_target)
        spans = self._mask_sequences(keys, component, token, inputs, targets)
        seen, asked = self._used(spans)
        used_in, used_out = inputs * is_grid, targets * is_grid
        left_in = total_in - used_in.sum(1) - seen.sum(1)
        left_out = total_out - used_out.sum(1) - asked.sum(1)
        inputs = fill(used_in, input_shares, left_in, (length - used_out) * is_grid)
        targets = fill(used_out, target_shares, left_out, (length - inputs) * is_grid * is_target)
        return inputs + seen, targets + asked, spans

    def _draw_faithful(
        self, keys: Keys, component: Tensor, token: Tensor, length: Budgets
    ) -> tuple[Budgets, Budgets, Spans]:
        tables = self._on(keys.device)
        is_grid = tables["is_grid"]
        room = tables["most"] * (length > 0)
        total = self._total_inputs(keys)
        inputs = torch.minimum(self._faithful_inputs(keys, component, total), room)
        room = torch.where(is_grid, room - inputs, room) * tables["is_target"]
        targets = self._faithful_targets(keys, component, room)
        spans = self._mask_sequences(keys, component, token, inputs, targets)
        seen, asked = self._used(spans)
        return inputs * is_grid + seen, targets * is_grid + asked, spans

    def _draw_component(self, keys: Keys) -> Int64[Tensor, " batch"]:
        bounds = self._on(keys.device)["bounds"]
        return torch.searchsorted(bounds, uniforms(keys, "component", 1)[:, 0], right=True)

    def _input_slots(self, drawn: "_Drawn") -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Modality, position, token and source of each slot of the encoder."""
        tables = self._on(drawn.order.device)
        slots = deal(drawn.inputs, self.config.input_range[1])
        value, _ = self._look_up(drawn.order, drawn.spans.input_token, slots, slots.rank)
        is_grid, is_pixels, is_vector = (
            slots.of(tables[name]) & slots.is_used for name in ("is_grid", "is_pixels", "is_vector")
        )
        vector = (value - FIRST_ID + 1).clamp(min=0)  # row 0 stands for a span of them
        return (
            slots.modality,
            torch.where(is_grid, value, slots.rank),
            torch.where(is_grid, self._on_grid(drawn.token, slots, value), value * ~is_vector),
            torch.where(is_pixels, value, vector * is_vector),
        )

    def _target_slots(self, drawn: "_Drawn") -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Modality, position, token and label of each slot of the decoder."""
        tables = self._on(drawn.order.device)
        slots = deal(drawn.targets, self.config.target_range[1])
        start = self._spread(drawn.spans.target_start)
        rank = slots.rank + slots.of(torch.where(tables["is_grid"], drawn.inputs, start))
        read, label = self._look_up(drawn.order, drawn.spans.target_token, slots, rank)
        is_grid = slots.of(tables["is_grid"]) & slots.is_used
        return (
            slots.modality,
            torch.where(is_grid, read, slots.rank),
            torch.where(is_grid, 0, read),
            torch.where(is_grid, self._on_grid(drawn.token, slots, read), label),
        )

    def _total_inputs(self, keys: Keys) -> Int64[Tensor, " batch"]:
        return integers(keys, "inputs", *self.config.input_range)

    def _total_targets(self, keys: Keys) -> Int64[Tensor, " batch"]:
        return integers(keys, "targets", *self.config.target_range)

    def _faithful_inputs(self, keys: Keys, component: Tensor, total: Tensor) -> Budgets:
        """Budgets of inputs before any sample is looked at."""
        tables = self._on(keys.device)
        alpha, odds = tables["input_alpha"][component], tables["input_odds"][component]
        room = (tables["most"] * tables["is_input"]).expand(len(keys), -1)
        return faithful_budgets(keys, "input shares", alpha, odds, total, room)

    def _faithful_targets(self, keys: Keys, component: Tensor, room: Budgets) -> Budgets:
        tables = self._on(keys.device)
        alpha, odds = tables["target_alpha"][component], tables["target_odds"][component]
        total = self._total_targets(keys)
        return faithful_budgets(keys, "target shares", alpha, odds, total, room)

    def _input_shares(
        self, keys: Keys, component: Tensor, total: Tensor
    ) -> Float64[Tensor, "batch modalities"]:
        tables = self._on(keys.device)
        alpha = tables["input_alpha"][component]
        return efficient_shares(keys, "input shares", alpha, total, tables["is_pixels"])

    def _mask_sequences(
        self, keys: Keys, component: Tensor, token: Tensor, inputs: Budgets, targets: Budgets
    ) -> Spans:
        tables = self._on(keys.device)
        which = tables["sequence"]
        shape = token.shape[:2]
        spans = mask_spans(
            split(keys, tables["sequences"]).flatten(),
            token.flatten(0, 1),
            inputs[:, which].flatten(),
            targets[:, which].flatten(),
            tables["keep"][component].flatten(),
            tables["in_chunks"].expand(shape).flatten(),
        )
        return Spans(**{name: each.unflatten(0, shape) for name, each in vars(spans).items()})

    def _used(self, spans: Spans) -> tuple[Budgets, Budgets]:
        """Slots that sequences take: a decoder reads a token and predicts the one after it."""
        asked = (spans.target_length - 1).clamp(min=0)
        return self._spread(spans.input_length), self._spread(asked)

    def _spread(
        self, values: Int64[Tensor, "batch sequences"]
    ) -> Int64[Tensor, "batch modalities"]:
        """What is known of sequences at their places among all modalities, 0 at the others."""
        return functional.pad(values, (0, 1))[:, self._on(values.device)["number"]]

    def _sequence_tokens(self, batch: Batch) -> Int32[Tensor, "batch sequences length"]:
        """Ids of all sequences in one width; those of vectors are numbered."""
        columns = []
        for each in self._sequences:
            token = batch.tokens[each.name].int()
            if each.masking is Law.EMBEDDING:
                place = torch.arange(token.shape[1], dtype=torch.int32, device=token.device)
                token = torch.where(token > 0, FIRST_ID + place, 0)
            if each.name in batch.valid:
                token = token * batch.valid[each.name][:, None]
            columns.append(token)
        if not columns:
            return batch.sample.new_zeros(len(batch.sample), 0, 1, dtype=torch.int32)
        width = max(each.shape[1] for each in columns)
        if batch.sample.device.type == "cpu" and not torch.compiler.is_compiling():
            width = max(1, *(int((each > 0).any(0).sum()) for each in columns))
        return torch.stack(
            [functional.pad(each, (0, width - each.shape[1])) for each in columns], 1
        )

    def _lengths(self, batch: Batch, token: Tensor) -> Budgets:
        """Tokens that each sample has of each modality."""
        tables = self._on(token.device)
        grid = tables["most"] * tables["is_grid"]
        length = grid + self._spread((token > 0).sum(2))
        always = torch.ones_like(batch.sample, dtype=torch.bool)
        valid = [batch.valid.get(name, always) for name in self.domains.names]
        return length * torch.stack(valid, 1)

    def _grid_tokens(self, batch: Batch) -> Integer[Tensor, "batch places"]:
        """Tokens of all grids in the order of their places, and a 0 that stands for pixels."""
        names = [each.name for each in self._grids if each.masking is not Law.PIXELS]
        zero = batch.sample.new_zeros(len(batch.sample), 1, dtype=torch.int16)
        return torch.cat([*(batch.tokens[name] for name in names), zero], 1)

    def _on_grid(self, token: Tensor, slots: Slots, place: Tensor) -> Int64[Tensor, "batch slots"]:
        """Tokens at places of grids."""
        column = slots.of(self._on(token.device)["start"]) + place
        return token.gather(1, column.clamp(max=token.shape[1] - 1)).long()

    def _look_up(
        self,
        order: Int32[Tensor, "batch places"],
        sequences: Int32[Tensor, "batch sequences length"],
        slots: Slots,
        rank: Int64[Tensor, "batch slots"],
    ) -> tuple[Int64[Tensor, "batch slots"], Int64[Tensor, "batch slots"]]:
        """Number `rank` of what is chosen of each slot's modality, and the one after it."""
        tables = self._on(order.device)
        length = sequences.shape[2]
        after = order.shape[1] + tables["number"] * length
        start = torch.where(tables["is_grid"], tables["start"], after)
        values = torch.cat([order, sequences.flatten(1)], 1)
        column = torch.where(slots.is_used, slots.of(start) + rank, 0)
        following = (column + 1).clamp(max=values.shape[1] - 1)
        found = (values.gather(1, each).long() for each in (column, following))
        first, second = (torch.where(slots.is_used, each, 0) for each in found)
        return first, second

    def _continuous(self, batch: Batch) -> dict[str, Continuous]:
        found: dict[str, Continuous] = {
            name: patches(pixels, self.domains.modality(name).patch_size)
            for name, pixels in batch.pixels.items()
        }
        for name, vectors in batch.vectors.items():
            found[name] = functional.pad(vectors, (0, 0, 1, 0))
        return found

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        """The tables on a device, where they are put once."""
        if device not in self._tables:
            tables = self._tables[torch.device("cpu")]
            self._tables[device] = {name: each.to(device) for name, each in tables.items()}
        return self._tables[device]

    def _make_tables(self) -> dict[str, Tensor]:
        """What is known of modalities (`K` of them), grids and sequences."""
        domains, mixture = self.domains, self.config.mixture
        every = domains.modalities
        input_alpha = _alphas(domains, domains.inputs, mixture, "inputs")
        target_alpha = _alphas(domains, domains.targets, mixture, "targets")
        weights = torch.tensor([each.weight for each in mixture]).double()
        names = [each.name for each in self._sequences]
        ends = accumulate(each.max_tokens for each in self._grids)
        starts = {
            each.name: end - each.max_tokens for each, end in zip(self._grids, ends, strict=True)
        }
        return {
            "bounds": (weights / weights.sum()).cumsum(0)[:-1],
            "input_alpha": input_alpha,
            "input_odds": winning_odds(input_alpha),
            "target_alpha": target_alpha,
            "target_odds": winning_odds(target_alpha),
            "most": torch.tensor([each.max_tokens for each in every]),
            "is_input": torch.tensor([name in domains.inputs for name in domains.names]),
            "is_target": torch.tensor([name in domains.targets for name in domains.names]),
            "is_grid": torch.tensor([each.masking not in SEQUENCES for each in every]),
            "is_pixels": torch.tensor([each.masking is Law.PIXELS for each in every]),
            "is_vector": torch.tensor([each.masking is Law.EMBEDDING for each in every]),
            "start": torch.tensor([starts.get(name, 0) for name in domains.names]),
            "number": torch.tensor(
                [names.index(name) if name in names else len(names) for name in domains.names]
            ),
            "grids": streams([f"{each.name} order" for each in self._grids]),
            "sequences": streams([f"{name} spans" for name in names]),
            "sequence": torch.tensor([domains.index(name) for name in names], dtype=torch.int64),
            "in_chunks": torch.tensor(
                [each.masking is Law.CHUNKS for each in self._sequences], dtype=torch.bool
            ),
            "keep": torch.tensor(
                [[Keep[each.keep_of(name).upper()] for name in names] for each in mixture],
                dtype=torch.int64,
            ),
        }


@dataclass(frozen=True)
class _Drawn:
    """What was drawn of a batch.

    Attributes:
        inputs: slots of each modality; `targets` likewise.
        order: places of all grids, those that are inputs first, those that are targets next.
        token: of all grids, by place.
    """

    inputs: Budgets
    targets: Budgets
    spans: Spans
    order: Int32[Tensor, "batch places"]
    token: Integer[Tensor, "batch columns"]


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
