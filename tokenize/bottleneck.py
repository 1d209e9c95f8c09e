"""The network of a tokenizer of vectors: an MLP, parallel code books, an MLP.

Parameters are named as in the reference implementation of 4M, so that its weights load. The MLPs
are those of Bachmann et al. 2023 ("Scaling MLPs"): residual blocks that are wide inside.
Shapes: B batch, C channels, D width, L latent width, G code books; H and W are 1 for vectors.
"""

from typing import Annotated

from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fourmill.tokenize.quantize import ParallelQuantizer

Count = Annotated[int, Field(ge=1)]


class BottleneckConfig(BaseModel):
    """Shape of a `BottleneckAutoencoder`; the defaults, channels aside, are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Count = Field(description="width of the vectors")
    dim: Count = Field(default=1024, description="width between the blocks of the MLPs")
    encoder_depth: int = Field(default=6, ge=0, description="blocks of the encoder")
    decoder_depth: int = Field(default=6, ge=0, description="blocks of the decoder")
    expansion: Count = Field(default=4, description="how many times as wide blocks are inside")
    latent: Count = Field(default=1024, description="width of the codes of all books together")
    books: Count = Field(
        default=16, description="parallel code books, a token each; divides latent"
    )
    codes: Count = Field(default=8192, description="size of each code book, the vocabulary")


class BottleneckBlock(nn.Module):
    """Two layers, wide between them."""

    def __init__(self, dim: int, wide: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim))

    def forward(self, x_BD: Tensor) -> Tensor:
        """The same shape."""
        return self.block(x_BD)  # type: ignore[no-any-return]


class BottleneckMLP(nn.Module):
    """Pre-norm residual blocks, the same at every position."""

    def __init__(self, inputs: int, dim: int, outputs: int, depth: int, expansion: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(inputs, dim)
        self.linear_out = nn.Linear(dim, outputs)
        self.blocks = nn.ModuleList(BottleneckBlock(dim, expansion * dim) for _ in range(depth))
        self.layernorms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))

    def forward(self, x: Float[Tensor, "B inputs H W"]) -> Float[Tensor, "B outputs H W"]:
        """Other channels, the same positions."""
        x_BHWD = self.linear_in(x.permute(0, 2, 3, 1))
        for block, norm in zip(self.blocks, self.layernorms, strict=True):
            x_BHWD = x_BHWD + block(norm(x_BHWD))
        return self.linear_out(x_BHWD).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class BottleneckAutoencoder(nn.Module):
    """Vectors → a token of each code book → vectors."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.config = config
        shape = {"dim": config.dim, "expansion": config.expansion}
        self.encoder = BottleneckMLP(
            config.channels, outputs=config.dim, depth=config.encoder_depth, **shape
        )
        self.quant_proj = nn.Conv2d(config.dim, config.latent, 1)
        self.quantize = ParallelQuantizer(config.books, config.codes, config.latent)
        self.decoder = BottleneckMLP(
            config.dim, outputs=config.channels, depth=config.decoder_depth, **shape
        )
        self.post_quant_proj = nn.Conv2d(config.latent, config.dim, 1)

    def encode(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B L H W"]:
        """Latents before they are quantized."""
        return self.quant_proj(self.encoder(x))  # type: ignore[no-any-return]

    def decode(self, latents: Float[Tensor, "B L H W"]) -> Float[Tensor, "B C H W"]:
        """Vectors of quantized latents."""
        return self.decoder(self.post_quant_proj(latents))  # type: ignore[no-any-return]

    def tokenize(self, x: Float[Tensor, "B C H W"]) -> Int[Tensor, "B G H W"]:
        """Ids of the codes."""
        return self.quantize.tokenize(self.encode(x))

    def decode_tokens(self, tokens: Int[Tensor, "B G H W"]) -> Float[Tensor, "B C H W"]:
        """Vectors that tokens stand for."""
        return self.decode(self.quantize.lookup(tokens))
