"""Which modality each slot of the encoder or decoder belongs to: those with tokens, in a row."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from fourmill.train.selection import PADDING


@dataclass(frozen=True)
class Slots:
    """Slots, and what each of them holds.

    Attributes:
        modality: index, `PADDING` where a slot is empty.
        rank: number of the token among the chosen ones of its modality; 0 where it is empty.
    """

    modality: Int64[Tensor, "batch slots"]
    rank: Int64[Tensor, "batch slots"]

    @property
    def is_used(self) -> Bool[Tensor, "batch slots"]:
        """Whether a slot holds anything."""
        return self.modality != PADDING

    def of(self, values: Tensor) -> Shaped[Tensor, "batch slots"]:
        """What is known of each slot's modality; what empty slots get means nothing.

        Args:
            values: by modality, `[modalities]`, or of each sample, `[batch, modalities]`.
        """
        return values.expand(len(self.modality), -1).gather(1, self.modality.clamp(min=0))


def deal(counts: Int64[Tensor, "batch modalities"], slots: int) -> Slots:
    """Give each modality its number of slots; what is beyond them all is dropped."""
    ends = counts.cumsum(1)
    slot = torch.arange(slots, device=counts.device).expand(len(counts), -1)
    modality = torch.searchsorted(ends, slot.contiguous(), right=True)
    is_used = modality < counts.shape[1]
    modality = torch.where(is_used, modality, PADDING)
    first = (ends - counts).gather(1, modality.clamp(min=0))
    return Slots(modality, torch.where(is_used, slot - first, 0))
