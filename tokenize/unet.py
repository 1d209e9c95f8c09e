"""A U-Net that denoises an image, given the latents of its tokens.

Parameters are named as in the reference implementation of 4M, so that its weights load.
Shapes: B batch, C channels, H and W pixels, L latent width, D width, h and w cells of a level.
"""

import math
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

Count = Annotated[int, Field(ge=1)]


class LevelsConfig(BaseModel):
    """Levels of residual blocks, each of half as many rows and columns as the one before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: Count = Field(default=4, description="side, in pixels, of a cell of the first level")
    width: Annotated[int, Field(ge=2, multiple_of=2)] = Field(
        default=256, description="channels of the first level"
    )
    factors: tuple[Count, ...] = Field(
        default=(1, 2, 2, 2), min_length=1, description="channels of each level, in widths"
    )
    depth: Count = Field(default=3, description="residual blocks of a level")
    groups: Count = Field(
        default=32, description="groups of the normalisation; divides the channels of a level"
    )


class UNetConfig(LevelsConfig):
    """Shape of a `UNet`; the defaults are the reference's."""

    attention: tuple[int, ...] = Field(default=(2, 3), description="levels with attention, from 0")

    @property
    def multiple(self) -> int:
        """What the sides of an image are a multiple of."""
        return self.patch * (1 << (len(self.factors) - 1))


class Residual(nn.Module):
    """Two convolutions, with the step of the diffusion added between them."""

    def __init__(self, inputs: int, outputs: int, config: LevelsConfig) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(config.groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.width, outputs))
        # the reference has a dropout of 0 in the third place, which counts in the names
        self.out_layers = nn.Sequential(
            nn.GroupNorm(config.groups, outputs),
            nn.SiLU(),
            nn.Identity(),
            silent(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BDhw: Tensor, step_BE: Tensor) -> Tensor:
        """As many cells, of the channels that go out."""
        inner_BDhw = self.in_layers(x_BDhw) + self.emb_layers(step_BE)[:, :, None, None]
        return self.skip_connection(x_BDhw) + self.out_layers(inner_BDhw)  # type: ignore[no-any-return]


class CellAttention(nn.Module):
    """Attention, of one head, among all cells of a level."""

    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = silent(nn.Conv1d(channels, channels, 1))

    def forward(self, x_BDhw: Tensor, step_BE: Tensor) -> Tensor:
        """The same shape; the step plays no part."""
        q, k, v = self.qkv(self.norm(x_BDhw).flatten(2)).transpose(1, 2).chunk(3, dim=2)
        mixed_BDN = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x_BDhw + self.proj_out(mixed_BDN).unflatten(2, x_BDhw.shape[2:])  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Half as many rows and columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x_BDhw: Tensor, step_BE: Tensor) -> Tensor:
        """The step plays no part."""
        return self.op(x_BDhw)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Twice as many rows and columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BDhw: Tensor, step_BE: Tensor) -> Tensor:
        """The step plays no part."""
        return self.conv(F.interpolate(x_BDhw, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Stack(nn.ModuleList):
    """Layers one after the other, each told the step; a list, since the reference numbers them."""

    def forward(self, x_BDhw: Tensor, step_BE: Tensor) -> Tensor:
        """What the last layer gives."""
        for layer in self:
            x_BDhw = layer(x_BDhw, step_BE)
        return x_BDhw


class UNet(nn.Module):
    """A noisy image, the step of the diffusion, and latents → what it is trained to predict.

    Args:
        channels: of the image.
        latent: width of the latents.
    """

    def __init__(self, config: UNetConfig, channels: int, latent: int) -> None:
        super().__init__()
        self.config = config
        self.time_embed = step_network(config)
        cell = channels * config.patch**2
        first = nn.Conv2d(cell + latent, config.width, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.Sequential(first)])
        skipped = [config.width]
        last = len(config.factors) - 1
        for level, factor in enumerate(config.factors):
            for _ in range(config.depth):
                block = self._block(skipped[-1], factor * config.width, level)
                self.input_blocks.append(Stack(block))
                skipped.append(factor * config.width)
            if level < last:
                self.input_blocks.append(Stack([Downsample(skipped[-1])]))
                skipped.append(skipped[-1])
        inner = skipped[-1]
        middle = (Residual(inner, inner, config), CellAttention(inner, config))
        self.middle_block = Stack([*middle, Residual(inner, inner, config)])
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(config.factors))):
            for index in range(config.depth + 1):
                block = self._block(inner + skipped.pop(), factor * config.width, level)
                inner = factor * config.width
                if level and index == config.depth:
                    block.append(Upsample(inner))
                self.output_blocks.append(Stack(block))
        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, inner),
            nn.SiLU(),
            silent(nn.Conv2d(inner, cell, 3, padding=1)),
        )

    def _block(self, inputs: int, outputs: int, level: int) -> list[nn.Module]:
        block: list[nn.Module] = [Residual(inputs, outputs, self.config)]
        if level in self.config.attention:
            block.append(CellAttention(outputs, self.config))
        return block

    def forward(
        self,
        noisy: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
        latents: Float[Tensor, "B L _ _"],
    ) -> Float[Tensor, "B C H W"]:
        """What it predicts of the image, from `noisy` at `steps`.

        Args:
            noisy: H and W are multiples of `config.multiple`.
            latents: of the tokens, on any grid.
        """
        patch, multiple = self.config.patch, self.config.multiple
        refuse_other_sides(noisy, multiple)
        step_BE = self.time_embed(step_waves(steps, self.config.width))
        cells_BDhw = F.pixel_unshuffle(noisy, patch)
        spread_BLhw = F.interpolate(latents, cells_BDhw.shape[2:], mode="nearest")
        first, *down = self.input_blocks
        kept = [first(torch.cat([cells_BDhw, spread_BLhw], dim=1))]
        for block in down:
            kept.append(block(kept[-1], step_BE))
        x_BDhw = self.middle_block(kept[-1], step_BE)
        for block in self.output_blocks:
            x_BDhw = block(torch.cat([x_BDhw, kept.pop()], dim=1), step_BE)
        return F.pixel_shuffle(self.out(x_BDhw), patch)


def step_network(config: LevelsConfig) -> nn.Sequential:
    """From `step_waves` to what residual blocks are told."""
    inner = 4 * config.width
    return nn.Sequential(nn.Linear(config.width, inner), nn.SiLU(), nn.Linear(inner, inner))


def refuse_other_sides(noisy: Float[Tensor, "B C H W"], multiple: int) -> None:
    """Refuse images that a network has no whole cells for.

    Raises:
        ValueError: their sides are not multiples of `multiple`.
    """
    height, width = noisy.shape[2:]
    if height % multiple or width % multiple:
        raise ValueError(f"found {height}x{width} pixels, expected multiples of {multiple}")


def silent(layer: nn.Module) -> nn.Module:
    """The layer with zeros for weights: what it ends adds nothing until training says so."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def step_waves(steps: Int[Tensor, " B"], width: int) -> Float[Tensor, "B width"]:
    """Cosines, then sines, of the step, with wavelengths to 10,000 turns."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=steps.device) / half)
    angles = steps[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
