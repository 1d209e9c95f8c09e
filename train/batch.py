"""What the loader hands over: small integer arrays of whole samples; masking chooses from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Samples, one crop of each.

    Attributes:
        sample: row of each sample in the snapshot: what masks are keyed by.
        visit: how many times it was seen before.
        tokens: ids by modality; sequences end with zeros. Of a sequence of vectors, 1 for each
            vector.
        valid: by modality, whether the sample has a label; all do where it is left out.
        pixels: by modality, the crop's pixels, 0..255.
        vectors: by modality, the vectors that `tokens` has a 1 for; what stands elsewhere is
            never looked at.
    """

    sample: Int64[Tensor, " batch"]
    visit: Int64[Tensor, " batch"]
    tokens: Mapping[str, Int[Tensor, "batch length"]]
    valid: Mapping[str, Bool[Tensor, " batch"]] = field(default_factory=dict)
    pixels: Mapping[str, UInt8[Tensor, "batch height width 3"]] = field(default_factory=dict)
    vectors: Mapping[str, Float[Tensor, "batch vectors values"]] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""

        def move(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: each.to(device, non_blocking=True) for name, each in values.items()}

        return Batch(
            self.sample.to(device, non_blocking=True), self.visit.to(device, non_blocking=True),
            move(self.tokens), move(self.valid), move(self.pixels), move(self.vectors),
        )  # fmt: skip


def patches(
    pixels: UInt8[Tensor, "batch height width 3"], size: int
) -> UInt8[Tensor, "batch patches values"]:
    """Square patches row by row, each flattened as (row, column, channel)."""
    batch, height, width, channels = pixels.shape
    rows = pixels.reshape(batch, height // size, size, width // size, size, channels)
    return rows.transpose(2, 3).reshape(batch, -1, size * size * channels)
