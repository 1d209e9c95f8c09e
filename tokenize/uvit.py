"""A UViT that denoises an image: convolutions outside, a transformer on the tokens' grid inside.

After simple diffusion (Hoogeboom et al. 2023, arXiv:2301.11093): where there are many cells,
residual blocks; where there is one a token, a transformer, told the step in every block, and the
codes of the tokens where it begins. Parameters have names of their own.
Shapes: B batch, C channels, H and W pixels, L latent width, D width, E width of what tells the
step, h and w cells of a level, N tokens.
"""

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.tokenize.autoencoder import Attention, Mlp, sine_positions
from fourmill.tokenize.unet import (
    Count,
    Downsample,
    LevelsConfig,
    Residual,
    Stack,
    Upsample,
    refuse_other_sides,
    silent,
    step_network,
    step_waves,
)


class UViTConfig(LevelsConfig):
    """Shape of a `UViT`; the defaults are for images with tokens of 16 pixels."""

    width: Annotated[int, Field(ge=2, multiple_of=2)] = Field(
        default=128, description="channels of the first level"
    )
    factors: tuple[Count, ...] = Field(
        default=(1, 2), min_length=1, description="channels of each level, in widths"
    )
    dim: Annotated[int, Field(ge=4, multiple_of=4)] = Field(
        default=768, description="width of the transformer"
    )
    blocks: Count = Field(default=12, description="blocks of the transformer")
    heads: Count = Field(default=12, description="attention heads; divides dim")

    @property
    def multiple(self) -> int:
        """Side, in pixels, of a cell of the transformer; sides of an image are multiples of it."""
        return self.patch * (1 << len(self.factors))


class StepBlock(nn.Module):
    """A transformer block whose norms are scaled and shifted, and its results weighed, by the step
    (adaLN-Zero of Peebles and Xie 2023, arXiv:2212.09748)."""

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(config.dim, nn.GELU())
        told = silent(nn.Linear(4 * config.width, 6 * config.dim))
        self.step = nn.Sequential(nn.SiLU(), told)

    def forward(self, x_BND: Tensor, step_BE: Tensor) -> Tensor:
        """The same shape."""
        scale1, shift1, weight1, scale2, shift2, weight2 = self.step(step_BE)[:, None].chunk(6, 2)
        x_BND = x_BND + weight1 * self.attn(self.norm1(x_BND) * (1 + scale1) + shift1)
        return x_BND + weight2 * self.mlp(self.norm2(x_BND) * (1 + scale2) + shift2)  # type: ignore[no-any-return]


class TokenTransformer(nn.Module):
    """Cells of the tokens' grid with their codes → as many cells."""

    def __init__(self, config: UViTConfig, channels: int, latent: int, grid: int) -> None:
        super().__init__()
        positions = sine_positions(grid, config.dim)
        self.pos_emb = nn.Parameter(positions, requires_grad=False)
        self.proj_in = nn.Conv2d(channels + latent, config.dim, 1)
        self.blocks = nn.ModuleList(StepBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.proj_out = nn.Conv2d(config.dim, channels, 1)

    def forward(self, x_BDhw: Tensor, step_BE: Tensor, latents_BLhw: Tensor) -> Tensor:
        """The same shape as `x_BDhw`."""
        cells = x_BDhw.shape[2:]
        codes_BLhw = F.interpolate(latents_BLhw, cells, mode="nearest")
        positions: Tensor = self.pos_emb
        if positions.shape[2:] != cells:
            positions = F.interpolate(positions, cells, mode="bicubic", align_corners=False)
        inner_BDhw = self.proj_in(torch.cat([x_BDhw, codes_BLhw], dim=1)) + positions
        inner_BND = inner_BDhw.flatten(2).transpose(1, 2)
        for block in self.blocks:
            inner_BND = block(inner_BND, step_BE)
        inner_BDN = self.norm(inner_BND).transpose(1, 2)
        return x_BDhw + self.proj_out(inner_BDN.unflatten(2, cells))  # type: ignore[no-any-return]


class UViT(nn.Module):
    """A noisy image, the step of the diffusion, and latents → what it is trained to predict.

    Args:
        channels: of the image.
        latent: width of the latents.
        grid: rows, and columns, of tokens of the images that it is trained on.
    """

    def __init__(self, config: UViTConfig, channels: int, latent: int, grid: int) -> None:
        super().__init__()
        self.config = config
        self.time_embed = step_network(config)
        cell = channels * config.patch**2
        self.conv_in = nn.Conv2d(cell, config.width, 3, padding=1)
        self.down = nn.ModuleList()
        inner, skipped = config.width, []
        for factor in config.factors:
            for _ in range(config.depth):
                self.down.append(Stack([Residual(inner, factor * config.width, config)]))
                inner = factor * config.width
                skipped.append(inner)
            self.down.append(Stack([Downsample(inner)]))
        self.middle = TokenTransformer(config, inner, latent, grid)
        self.up = nn.ModuleList()
        for factor in reversed(config.factors):
            self.up.append(Stack([Upsample(inner)]))
            for _ in range(config.depth):
                outer = factor * config.width
                self.up.append(Stack([Residual(inner + skipped.pop(), outer, config)]))
                inner = outer
        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, inner),
            nn.SiLU(),
            silent(nn.Conv2d(inner, cell, 3, padding=1)),
        )

    def forward(
        self,
        noisy: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
        latents: Float[Tensor, "B L _ _"],
    ) -> Float[Tensor, "B C H W"]:
        """What it predicts of the image, from `noisy` at `steps`.

        Args:
            noisy: H and W are multiples of `config.multiple`.
            latents: of the tokens; on another grid than the image's, the nearest are taken.

        Raises:
            ValueError: sides that are not such multiples.
        """
        refuse_other_sides(noisy, self.config.multiple)
        step_BE = self.time_embed(step_waves(steps, self.config.width))
        x_BDhw = self.conv_in(F.pixel_unshuffle(noisy, self.config.patch))
        kept = []
        for stack in self.down:
            x_BDhw = stack(x_BDhw, step_BE)
            if _has_skip(stack):
                kept.append(x_BDhw)
        x_BDhw = self.middle(x_BDhw, step_BE, latents)
        for stack in self.up:
            if _has_skip(stack):
                x_BDhw = torch.cat([x_BDhw, kept.pop()], dim=1)
            x_BDhw = stack(x_BDhw, step_BE)
        return F.pixel_shuffle(self.out(x_BDhw), self.config.patch)


def _has_skip(stack: nn.Module) -> bool:
    return isinstance(next(stack.children()), Residual)
