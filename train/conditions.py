"""What is known of some samples before they are generated, and how the model sees it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking
from fourmill.train.batch import Batch, patches
from fourmill.train.domains import CONTINUOUS, SEQUENCE_POSITIONS, Domains
from fourmill.train.selection import PADDING, Selection, compact

UNKNOWN = -1
"""Stands in a grid where nothing is known."""


@dataclass(frozen=True)
class Conditions:
    """What is known of some samples.

    Attributes:
        sample: number of each sample: what draws are keyed by.
        tokens: ids by modality: grids whole or with -1 for what is unknown, sequences as stored,
            ending with zeros; a sequence may be left open by a sentinel, for what is unknown.
        pixels: 0..255, or floats that are taken as they are, by modality.
        shown: of pixels, which patches are known; all where it is left out.
    """

    sample: Int64[Tensor, " batch"]
    tokens: Mapping[str, Int64[Tensor, "batch length"]] = field(default_factory=dict)
    pixels: Mapping[str, Tensor] = field(default_factory=dict)
    shown: Mapping[str, Bool[Tensor, "batch length"]] = field(default_factory=dict)

    @staticmethod
    def of(batch: Batch, names: Sequence[str]) -> "Conditions":
        """Some modalities of a batch; what a sample lacks is unknown.

        Raises:
            ConfigError: pixels that a sample lacks.
        """
        tokens = {}
        for name in names:
            if name in batch.tokens:
                valid = batch.valid.get(name, torch.ones_like(batch.sample, dtype=torch.bool))
                tokens[name] = batch.tokens[name].long().masked_fill(~valid[:, None], UNKNOWN)
            elif not bool(batch.valid.get(name, torch.ones(1)).all()):
                raise ConfigError(f"{name}: a sample has no readable image")
        return Conditions(
            batch.sample,
            tokens,
            {name: batch.pixels[name] for name in names if name in batch.pixels},
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the modalities that something may be known of."""
        return (*self.tokens, *self.pixels)

    def knowing(self, name: str, tokens: Int64[Tensor, "batch length"]) -> "Conditions":
        """The same with the tokens of one more modality, or with others of one."""
        return replace(self, tokens={**self.tokens, name: tokens})

    def without(self, names: Collection[str]) -> "Conditions":
        """The same without some modalities."""

        def rest(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: each for name, each in values.items() if name not in names}

        return Conditions(self.sample, rest(self.tokens), rest(self.pixels), rest(self.shown))

    def rows(self, index: Int64[Tensor, " rows"] | Bool[Tensor, " batch"]) -> "Conditions":
        """Some of the samples."""

        def some(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: each[index] for name, each in values.items()}

        return Conditions(
            self.sample[index], some(self.tokens), some(self.pixels), some(self.shown)
        )

    def prepared(self, domains: Domains) -> "Conditions":
        """The same with pixels as patches, which is as the model takes them.

        Raises:
            UnknownNameError: a modality that the model does not know.
            ConfigError: one that it cannot see, or that is given twice; wrong shapes; ids that
                are not in the vocabulary.
        """
        for name in self.names:
            domains.index(name)
            if name not in domains.inputs:
                raise ConfigError(
                    f"{name} is no input of this model, so it cannot be a condition; inputs: "
                    f"{', '.join(domains.inputs)}"
                )
        for name in self.tokens.keys() & self.pixels.keys():
            raise ConfigError(f"{name} is given twice, as tokens and as pixels: give it once")
        for name, tokens in self.tokens.items():
            _refuse_wrong_tokens(domains, name, tokens, len(self.sample))
        pixels = {name: _rows(domains, name, each) for name, each in self.pixels.items()}
        for name, rows in pixels.items():
            places = self.shown[name].shape if name in self.shown else rows.shape[:2]
            if len(rows) != len(self.sample) or places != rows.shape[:2]:
                raise ConfigError(
                    f"{name}: pixels of {len(rows)} samples with {rows.shape[1]} patches, of which "
                    f"{tuple(places)} are said to be shown or not; there are {len(self.sample)} "
                    f"samples"
                )
        for name in self.shown.keys() - pixels.keys():
            raise ConfigError(f"{name}: patches of it are said to be shown, but it has no pixels")
        return replace(self, pixels=pixels)


def select_inputs(domains: Domains, conditions: Conditions) -> Selection:
    """All that is known and that the model can see, as inputs; no targets."""
    sample = conditions.sample
    none = torch.zeros(len(sample), 0, dtype=torch.int64, device=sample.device)
    columns = [(none.bool(), none, none, none, none)]
    for name, tokens in conditions.tokens.items():
        if name not in domains.inputs:  # a target that was generated, or is being
            continue
        known = known_tokens(domains, name, tokens)
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        number = torch.full_like(place, domains.index(name))
        columns.append((known, number, place, tokens, torch.zeros_like(place)))
    continuous = {name: _rows(domains, name, each) for name, each in conditions.pixels.items()}
    for name, rows in continuous.items():
        place = torch.arange(rows.shape[1], device=rows.device).expand(len(rows), -1)
        number = torch.full_like(place, domains.index(name))
        shown = conditions.shown.get(name, torch.ones_like(place, dtype=torch.bool))
        columns.append((shown, number, place, torch.zeros_like(place), place))
    chosen, *values = (torch.cat(each, dim=1) for each in zip(*columns, strict=True))
    slots = int(chosen.sum(1).max()) if chosen.numel() else 0
    index, position, token, source = compact(chosen, slots, *values, empty=(PADDING, 0, 0, 0))
    return Selection(index, position, token, source, none, none, none, none, continuous)


def known_tokens(
    domains: Domains, name: str, tokens: Int64[Tensor, "batch length"]
) -> Bool[Tensor, "batch length"]:
    """Which tokens are known: of a grid those that are not -1, of a sequence those that are no
    padding."""
    is_grid = domains.modality(name).masking is Masking.IMAGE
    return tokens >= 0 if is_grid else tokens > 0


def side_by_side(selections: Sequence[Selection]) -> Selection:
    """Inputs of the same samples, one selection after the other as further rows of one.

    Targets are left out.
    """
    slots = max(each.input_modality.shape[1] for each in selections)

    def stack(field: str, filler: int) -> Tensor:
        values = [getattr(each, field) for each in selections]
        return torch.cat(
            [functional.pad(each, (0, slots - each.shape[1]), value=filler) for each in values]
        )

    names = {name: each for selection in selections for name, each in selection.continuous.items()}
    none = torch.zeros(
        len(selections) * len(selections[0].input_modality), 0, dtype=torch.int64,
        device=selections[0].input_modality.device,
    )  # fmt: skip
    return Selection(
        stack("input_modality", PADDING), stack("input_position", 0), stack("input_token", 0),
        stack("input_source", 0), none, none, none, none,
        {name: each.repeat(len(selections), 1, 1) for name, each in names.items()},
    )  # fmt: skip


def _refuse_wrong_tokens(domains: Domains, name: str, tokens: Tensor, samples: int) -> None:
    modality = domains.modality(name)
    if modality.masking in CONTINUOUS:
        raise ConfigError(f"{name} has no tokens: give it as pixels, or vectors")
    is_grid = modality.masking is Masking.IMAGE
    count = modality.max_tokens if is_grid else SEQUENCE_POSITIONS
    width = tokens.shape[1]
    if len(tokens) != samples or width > count or (is_grid and width < count):
        raise ConfigError(
            f"{name}: found tokens {tuple(tokens.shape)}, expected {'' if is_grid else 'up to '}"
            f"{count} for each of {samples} samples"
        )
    if tokens.numel() and not UNKNOWN <= int(tokens.min()) <= int(tokens.max()) < (
        modality.vocab_size
    ):
        raise ConfigError(
            f"{name}: found tokens from {int(tokens.min())} to {int(tokens.max())}, expected -1 to "
            f"{modality.vocab_size - 1}"
        )


def _rows(domains: Domains, name: str, pixels: Tensor) -> Tensor:
    if pixels.ndim == 3:  # patches already
        return pixels
    return patches(pixels, domains.modality(name).patch_size)
