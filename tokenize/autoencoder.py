"""The network of a VQ tokenizer: a ViT encoder, a quantizer, a ViT decoder.

`TokenEncoder` is its first half, which the diffusion tokenizers of `tokenize/divae.py` share.

Parameters are named as in the reference implementation of 4M, so that its weights load.
Shapes: B batch, N tokens, D width, L latent width, C channels, H and W pixels, h and w tokens.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.tokenize.quantize import CosineQuantizer, ScalarQuantizer

Count = Annotated[int, Field(ge=1)]

# The reference has 1e-6 in all its transformers.
_NORM_EPS = 1e-6


class NetworkConfig(BaseModel, ABC):
    """Shape of a network that begins with a `TokenEncoder`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def resized(self, size: int) -> "NetworkConfig":
        """The same for inputs of another side, in pixels or feature cells.

        Raises:
            ValidationError: a side that the network cannot have.
        """


class EncoderConfig(NetworkConfig):
    """Shape of a `TokenEncoder`; the defaults are small enough for two CPU cores."""

    channels: Count = Field(description="channels of the input; of its class embedding if labels")
    labels: int = Field(
        default=0, ge=0, description="number of classes of a class map, 0 for values"
    )
    size: Count = Field(default=112, description="side of the input, in pixels or feature cells")
    patch: Count = Field(
        default=8, description="side of one token, in the same; 1 for feature maps"
    )
    dim: Count = Field(default=128, description="width of the transformers")
    encoder_depth: int = Field(default=2, ge=0, description="blocks of the encoder")
    heads: Count = Field(default=4, description="attention heads; divides dim")
    latent: Count = Field(default=32, description="width of the codes")
    codes: Count = Field(default=512, description="size of the code book, the vocabulary")
    post_mlp: bool = Field(default=True, description="end each transformer with a tanh MLP")
    # left out where there are none, as in what was saved before there were any
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(),
        exclude_if=lambda levels: not levels,
        description="of a finite scalar quantization, one for each latent, instead of a code book",
    )

    @model_validator(mode="after")
    def _levels_fit(self) -> "EncoderConfig":
        if self.levels and (len(self.levels), math.prod(self.levels)) != (self.latent, self.codes):
            raise ValueError(
                f"levels {self.levels} are of {len(self.levels)} latents and "
                f"{math.prod(self.levels)} codes, found {self.latent} and {self.codes}"
            )
        return self

    @property
    def grid(self) -> int:
        """Rows, and columns, of tokens."""
        return self.size // self.patch

    def resized(self, size: int) -> "EncoderConfig":
        """The same for inputs of another side."""
        return type(self).model_validate(self.model_dump() | {"size": size})


class AutoencoderConfig(EncoderConfig):
    """Shape of a `VQAutoencoder`."""

    decoder_depth: int = Field(default=2, ge=0, description="blocks of the decoder")
    reach: int = Field(
        default=0,
        ge=0,
        description="tokens on each side that decoding starts from; none in the reference",
    )
    # left out where there are none, as in what was saved before there were any
    out_conv: bool = Field(
        default=False,
        exclude_if=lambda has: not has,
        description="end the decoder with two ConvNeXt blocks, against edges of patches",
    )

    @property
    def outputs(self) -> int:
        """Channels of the output: values, or logits of the classes."""
        return self.labels or self.channels


class Mlp(nn.Module):
    """Two layers, four times as wide inside."""

    def __init__(self, dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = activation
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        """The same shape."""
        return self.fc2(self.hidden(x_BND))  # type: ignore[no-any-return]

    def hidden(self, x_BND: Tensor) -> Tensor:
        """What the second layer gets, four times as wide."""
        return self.act(self.fc1(x_BND))  # type: ignore[no-any-return]


class Tanh(nn.Module):
    """The hyperbolic tangent; on a CPU without gradients in half the time, to 1e-7."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if x.is_cpu and x.dtype == torch.float32 and not x.requires_grad:
            return (2 * x).sigmoid_().mul_(2).sub_(1)
        return x.tanh()


class Attention(nn.Module):
    """Attention among all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        """The same shape."""
        batch, tokens, dim = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.mlp = Mlp(dim, nn.GELU())

    def forward(self, x_BND: Tensor) -> Tensor:
        """The same shape."""
        x_BND = x_BND + self.attn(self.norm1(x_BND))
        return x_BND + self.mlp(self.norm2(x_BND))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """What encoder and decoder have in common: positions, blocks, and the tanh MLP at the end."""

    def __init__(self, config: EncoderConfig, depth: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(sine_positions(config.grid, config.dim), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config.dim, config.heads) for _ in range(depth))
        self.has_post_mlp = config.post_mlp
        if config.post_mlp:
            self.norm_mlp = nn.LayerNorm(config.dim, eps=_NORM_EPS)
            self.post_mlp = Mlp(config.dim, Tanh())

    def attended(self, x_BDhw: Tensor) -> Tensor:
        """`[B, N, D]`, before the MLP, from values without positions; another grid interpolates the
        positions."""
        positions: Tensor = self.pos_emb
        if positions.shape[2:] != x_BDhw.shape[2:]:
            positions = F.interpolate(
                positions, x_BDhw.shape[2:], mode="bicubic", align_corners=False
            )
        x_BND = (x_BDhw + positions).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x_BND = block(x_BND)
        return x_BND


class Encoder(Transformer):
    """Values to latents, one a patch."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, config.encoder_depth)
        self.proj = nn.Conv2d(config.channels, config.dim, config.patch, config.patch)

    def forward(self, x: Float[Tensor, "B C H W"], onto: nn.Conv2d) -> Float[Tensor, "B L h w"]:
        """One vector a patch, after a convolution that looks at nothing but it.

        Its matrix is multiplied with the MLP's second one first: where L is small, vectors of the
        whole width, a good part of the work, are never made.
        """
        patches = self.proj(x)
        x_BND = self.attended(patches)
        weight_LD = onto.weight[:, :, 0, 0]
        latents_BNL = F.linear(x_BND, weight_LD, onto.bias)
        if self.has_post_mlp:
            hidden, last = self.post_mlp.hidden(self.norm_mlp(x_BND)), self.post_mlp.fc2
            latents_BNL = latents_BNL + F.linear(
                hidden, weight_LD @ last.weight, weight_LD @ last.bias
            )
        return latents_BNL.transpose(1, 2).reshape(len(x), -1, *patches.shape[2:])


class ConvNeXtBlock(nn.Module):
    """A residual block of a wide convolution and an MLP at every pixel (Liu et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The same shape."""
        x_BHWC = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        x_BHWC = self.gamma * self.pwconv2(self.act(self.pwconv1(x_BHWC)))
        return x + x_BHWC.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Decoder(Transformer):
    """One vector a patch to values."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config, config.decoder_depth)
        self.patch = config.patch
        self.out_proj = nn.Linear(config.dim, config.outputs * config.patch**2)
        blocks = (ConvNeXtBlock(config.outputs) for _ in range(2 * config.out_conv))
        # no blocks, no parameters: networks without them keep their names
        self.out_conv = nn.Sequential(*blocks)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C H W"]:
        """Values of all pixels."""
        x_BND = self.attended(x)
        if self.has_post_mlp:
            x_BND = x_BND + self.post_mlp(self.norm_mlp(x_BND))
        patches_BNP = self.out_proj(x_BND)
        values = F.pixel_shuffle(patches_BNP.transpose(1, 2).unflatten(2, x.shape[2:]), self.patch)
        return self.out_conv(values)  # type: ignore[no-any-return]


class TokenEncoder(nn.Module):
    """Values (or class ids) → tokens, whatever decodes them.

    Attributes:
        shape: of this half.
        config: of the whole.
    """

    config: NetworkConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.shape = config
        self.has_labels = config.labels > 0
        if self.has_labels:
            self.cls_emb = nn.Embedding(config.labels, config.channels)
        self.encoder = Encoder(config)
        self.quant_proj = nn.Conv2d(config.dim, config.latent, 1)
        self.quantize: CosineQuantizer | ScalarQuantizer = (
            ScalarQuantizer(config.levels)
            if config.levels
            else CosineQuantizer(config.codes, config.latent)
        )

    def encode(
        self, x: Float[Tensor, "B C H W"] | Int[Tensor, "B H W"]
    ) -> Float[Tensor, "B L h w"]:
        """Latents before they are quantized, of values or of class ids."""
        if self.has_labels:
            x = self.cls_emb(x).permute(0, 3, 1, 2)
        return self.encoder(x, self.quant_proj)  # type: ignore[no-any-return]

    def tokenize(self, x: Float[Tensor, "B C H W"] | Int[Tensor, "B H W"]) -> Int[Tensor, "B h w"]:
        """Ids of the codes."""
        return self.quantize.tokenize(self.encode(x))


class VQAutoencoder(TokenEncoder):
    """Values (or class ids) → tokens → values (or logits of the classes)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.config: AutoencoderConfig = config
        self.decoder = Decoder(config)
        self.post_quant_proj = nn.Conv2d(
            config.latent, config.dim, 2 * config.reach + 1, padding=config.reach
        )

    def decode(self, latents: Float[Tensor, "B L h w"]) -> Float[Tensor, "B C H W"]:
        """Values, or logits, of quantized latents."""
        return self.decoder(self.post_quant_proj(latents))  # type: ignore[no-any-return]

    def decode_tokens(self, tokens: Int[Tensor, "B h w"]) -> Float[Tensor, "B C H W"]:
        """Values, or logits, that tokens stand for."""
        return self.decode(self.quantize.lookup(tokens))


def sine_positions(grid: int, dim: int) -> Float[Tensor, "1 dim grid grid"]:
    """Sines and cosines of column and row: a quarter of the width each, wavelengths to 10,000."""
    if dim % 4:
        raise ValueError(f"found width {dim}, expected a multiple of 4")
    # never on the meta device, whose arithmetic imports torch's compiler: seconds for each process
    quarter, places = (torch.arange(count, device="cpu") for count in (dim // 4, grid))
    angles = torch.exp(-math.log(10_000) * quarter / (dim // 4))[:, None] * places
    across = angles[:, None, :].expand(-1, grid, grid)
    down = angles[:, :, None].expand(-1, grid, grid)
    waves = [across.sin(), across.cos(), down.sin(), down.cos()]
    return torch.cat(waves)[None]
