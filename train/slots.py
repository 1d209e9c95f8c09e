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
        is_used: whether it is not.
        rank: number of the token among the chosen ones of its modality; 0 where it is empty.
        index: `modality`, but 0 where it is empty.
    """

    modality: Int64[Tensor, "batch slots"]
    is_used: Bool[Tensor, "batch slots"]
    rank: Int64[Tensor, "batch slots"]
    index: Int64[Tensor, "batch slots"]

    def of(self, values: Tensor) -> Shaped[Tensor, "batch slots"]:
        """What is known of each slot's modality; what empty slots get means nothing.

        Args:
            values: by modality, `[modalities]`, or of each sample, `[batch, modalities]`.
        """
        return values.expand(len(self.modality), -1).gather(1, self.index)


def deal(counts: Int64[Tensor, "batch modalities"], slots: int) -> Slots:
    """Give each modality its number of slots; what is beyond them all is dropped."""
    ends = counts.cumsum(1)
    slot = torch.arange(slots, device=counts.device).expand(len(counts), -1)
    found = torch.searchsorted(ends, slot.contiguous(), right=True)
    is_used = found < counts.shape[1]
    index = torch.where(is_used, found, 0)
    rank = torch.where(is_used, slot - (ends - counts).gather(1, index), 0)
    return Slots(torch.where(is_used, found, PADDING), is_used, rank, index)
