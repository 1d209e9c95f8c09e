"""Slots without padding: the rows that hold something, one after the other.

Linear layers, which are nearly all of the work, then skip what is padding. Attention needs samples
apart, and sees them unpacked. What comes out is the same.

Shapes: B batch, N slots, T rows that hold something.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Which slots hold something.

    Attributes:
        rows: their places, counted through the batch.
        batch: samples; `slots` those of each.
    """

    rows: Int64[Tensor, " rows"]
    batch: int
    slots: int

    @staticmethod
    def of(holds: Bool[Tensor, "batch slots"]) -> "Packing":
        """Of a mask; a GPU is waited for, to know how many there are."""
        return Packing(holds.flatten().nonzero().squeeze(1), *holds.shape)

    def pack(self, x: Float[Tensor, "batch slots dim"]) -> Float[Tensor, "rows dim"]:
        """The rows that hold something."""
        return x.flatten(0, 1)[self.rows]

    def unpack(self, x: Float[Tensor, "rows dim"]) -> Float[Tensor, "batch slots dim"]:
        """Each in its slot, and zeros in the others."""
        spread = x.new_zeros(self.batch * self.slots, x.shape[1])
        return spread.index_copy(0, self.rows, x).view(self.batch, self.slots, -1)
