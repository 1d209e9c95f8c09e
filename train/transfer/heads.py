"""Heads on an encoder: one answer an image, or one a pixel.

Shapes: B images, D width of the encoder, K outputs, h and w patches.
"""

import torch
from jaxtyping import Float
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Module):
    """A layer norm and a linear layer over pooled features."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.fc.weight, std=2e-5)
        nn.init.zeros_(self.fc.bias)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        scores: Tensor = self.fc(self.norm(pooled))
        return scores


class ConvNeXtHead(nn.Module):
    """Patches become finer maps, which ConvNeXt blocks work on (as the transfers of MultiMAE and 4M
    have it: Bachmann et al. 2022).

    Args:
        width: channels of the finer maps.
        finer: cells along the side of a patch.
        depth: ConvNeXt blocks.
    """

    def __init__(self, dim: int, outputs: int, width: int = 384, finer: int = 4, depth: int = 4):
        super().__init__()
        self.finer = finer
        self.proj = nn.Conv2d(dim, width * finer**2, 1)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
        self.out = nn.Conv2d(width, outputs, 1)
        nn.init.trunc_normal_(self.out.weight, std=0.01)

    def forward(
        self, patches: Float[Tensor, "B D h w"], size: tuple[int, int]
    ) -> Float[Tensor, "B K H W"]:
        """Outputs at every pixel of images of a size (height, width)."""
        fine = F.pixel_shuffle(self.proj(patches), self.finer)
        outputs: Tensor = self.out(self.blocks(fine))
        # on a CPU bfloat16 maps are resampled poorly
        return F.interpolate(outputs.to(torch.float32), size, mode="bilinear", align_corners=False)
