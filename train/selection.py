"""What the model sees of a batch: the tokens chosen as inputs and as targets, and nothing else.

Masking makes selections for training, `generate.py` makes them for prediction. Only what was
selected is ever embedded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int64, Num
from torch import Tensor

Continuous = Num[Tensor, "batch length values"]
"""Patches or vectors of one modality; uint8 pixels are 0..255, floats are taken as they are."""

PADDING = -1
"""The modality index of a slot that holds nothing."""


@dataclass(frozen=True)
class Selection:
    """Chosen tokens, in any order of modalities; those of one modality stand together.

    Attributes:
        input_modality: index into `Domains.modalities`; `PADDING` for empty slots.
        input_position: place in the grid, or rank among the sequence's visible tokens.
        input_token: id; 0 for pixels and embeddings, which are looked up by `input_source`.
        input_source: row of `continuous` that a slot shows; 0 for tokens.
        target_token: the id that the decoder reads (sequences: the token before the label); 0 for
            grids, where a learned mask token stands.
        target_label: the id that it should predict.
        continuous: by modality name, what its slots are rows of; row 0 of vectors is zero, and
            stands for a span that is masked.
    """

    input_modality: Int64[Tensor, "batch inputs"]
    input_position: Int64[Tensor, "batch inputs"]
    input_token: Int64[Tensor, "batch inputs"]
    input_source: Int64[Tensor, "batch inputs"]
    target_modality: Int64[Tensor, "batch targets"]
    target_position: Int64[Tensor, "batch targets"]
    target_token: Int64[Tensor, "batch targets"]
    target_label: Int64[Tensor, "batch targets"]
    continuous: Mapping[str, Continuous] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Selection":
        """The same on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        continuous = {name: each.to(device) for name, each in self.continuous.items()}
        return replace(self, continuous=continuous, **moved)


def compact(
    chosen: Tensor, slots: int, *values: Tensor, empty: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """The chosen columns of each row, moved to the front of `slots` slots, in order.

    Args:
        chosen: bool `[batch, columns]`; what is chosen beyond `slots` is dropped.
        values: int64 `[batch, columns]` each.
        empty: what stands in the slots that are left over, one number for each value.

    Returns:
        int64 `[batch, slots]` for each value.
    """
    rank = chosen.cumsum(1) - 1
    place = torch.where(chosen & (rank < slots), rank, slots)  # one more slot for what is dropped
    results = []
    for value, filler in zip(values, empty, strict=True):
        target = value.new_full((len(chosen), slots + 1), filler)
        results.append(target.scatter_(1, place, value)[:, :slots])
    return tuple(results)
