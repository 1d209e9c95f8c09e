"""Transformer blocks of 4M: pre-norm encoder and decoder blocks.

Shapes: B batch, N inputs (keys), M targets (queries), D width, H heads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.train.packing import Packing

Rows = Float[Tensor, "batch _ dim"] | Float[Tensor, "_ dim"]
"""Slots of samples, or packed: what holds something of all samples, one after the other."""

_WIDE = 1024


def aligned(hidden: int) -> int:
    """A hidden width that matrix units take well: what is more is filled with zeros."""
    step = 64 if hidden >= _WIDE else 32
    return -(-hidden // step) * step


@dataclass(frozen=True)
class BlockConfig:
    """Shape of a block.

    Attributes:
        mlp_ratio: hidden over outer width; gated MLPs take two thirds of it, so that the number of
            parameters stays.
        gated: SwiGLU (Shazeer 2020) rather than GELU.
        bias: in linear layers and norms.
        qk_norm: layer norm on queries and keys of each head (Dehghani et al. 2023).
    """

    dim: int
    heads: int
    mlp_ratio: float = 4.0
    gated: bool = True
    bias: bool = False
    qk_norm: bool = False

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP, without padding."""
        hidden = int(self.dim * self.mlp_ratio)
        return int(2 * hidden / 3) if self.gated else hidden


def norm(config: BlockConfig, width: int | None = None) -> nn.LayerNorm:
    """A layer norm as everywhere in the model."""
    return nn.LayerNorm(width or config.dim, eps=1e-6, bias=config.bias)


class Attention(nn.Module):
    """Multi-head attention with an additive bias: of a sequence to itself, or to a context."""

    def __init__(self, config: BlockConfig, cross: bool = False) -> None:
        super().__init__()
        self.heads = config.heads
        self.cross = cross
        if cross:
            self.q = nn.Linear(config.dim, config.dim, config.bias)
            self.kv = nn.Linear(config.dim, 2 * config.dim, config.bias)
        else:
            self.qkv = nn.Linear(config.dim, 3 * config.dim, config.bias)
        self.proj = nn.Linear(config.dim, config.dim, config.bias)
        head = config.dim // config.heads
        self.q_norm: nn.Module = norm(config, head) if config.qk_norm else nn.Identity()
        self.k_norm: nn.Module = norm(config, head) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x: Rows,
        context: Rows | None = None,
        bias: Float[Tensor, "batch 1 _ keys"] | None = None,
        packing: Packing | None = None,
        context_packing: Packing | None = None,
    ) -> Rows:
        """What each row takes from the others of its sample, or from those of the context.

        Args:
            bias: added to the scores; `None` lets everything attend to everything.
            packing: of `x`, where it is packed; then the context is packed too.
        """
        if context is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, (k, v) = self.q(x), self.kv(context).chunk(2, dim=-1)
        if packing is not None:
            keys = packing if context_packing is None else context_packing
            q, k, v = packing.unpack(q), keys.unpack(k), keys.unpack(v)
        q, k, v = (self.split_heads(each) for each in (q, k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        out = attend(q, k, v, bias) if k.shape[2] else torch.zeros_like(q)
        if self.cross and bias is not None:  # where all is hidden there is nothing to add
            out = out.masked_fill((bias < 0).all(-1, keepdim=True), 0)
        out = out.transpose(1, 2).flatten(2)
        result: Tensor = self.proj(out if packing is None else packing.pack(out))
        return result

    def split_heads(self, x: Tensor) -> Tensor:
        """`[batch, slots, dim]` as `[batch, heads, slots, dim of a head]`."""
        batch, length, dim = x.shape
        return x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """What queries take from values, all `[batch, heads, slots, dim of a head]`; bias is added."""
    if q.is_cpu and q.dtype == torch.bfloat16:
        # in bfloat16 the backward pass of the CPU's kernel takes five times as long as in float32
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), bias).to(q.dtype)
    bias = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class GatedMLP(nn.Module):
    """SwiGLU with both input projections in one product.

    The hidden width is padded with rows and columns of zeros, which get no gradient: the function
    is that of the unpadded one, before and after any training.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.hidden = config.hidden
        padded = aligned(config.hidden)
        self.gate_up = nn.Linear(config.dim, 2 * padded, config.bias)
        self.fc2 = nn.Linear(padded, config.dim, config.bias)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        result: Tensor = self.fc2(F.silu(gate) * up)
        return result


class PlainMLP(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.hidden, config.bias)
        self.fc2 = nn.Linear(config.hidden, config.dim, config.bias)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


def _mlp(config: BlockConfig) -> nn.Module:
    make: Callable[[BlockConfig], nn.Module] = GatedMLP if config.gated else PlainMLP
    return make(config)


class EncoderBlock(nn.Module):
    """Self-attention and MLP."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.norm1 = norm(config)
        self.attn = Attention(config)
        self.norm2 = norm(config)
        self.mlp = _mlp(config)

    def forward(
        self,
        x: Rows,
        bias: Float[Tensor, "batch 1 _ keys"] | None,
        packing: Packing | None = None,
    ) -> Rows:
        x = x + self.attn(self.norm1(x), bias=bias, packing=packing)
        return torch.add(x, self.mlp(self.norm2(x)))


class DecoderBlock(nn.Module):
    """Self-attention, attention to the encoder's output, and MLP."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.norm1 = norm(config)
        self.self_attn = Attention(config)
        self.query_norm = norm(config)
        self.context_norm = norm(config)
        self.cross_attn = Attention(config, cross=True)
        self.norm2 = norm(config)
        self.mlp = _mlp(config)

    def forward(
        self,
        y: Rows,
        context: Rows,
        self_bias: Float[Tensor, "batch 1 queries queries"],
        cross_bias: Float[Tensor, "batch 1 1 keys"] | None,
        packing: Packing | None = None,
        context_packing: Packing | None = None,
    ) -> Rows:
        y = y + self.self_attn(self.norm1(y), bias=self_bias, packing=packing)
        y = y + self.cross_attn(
            self.query_norm(y), self.context_norm(context), cross_bias, packing, context_packing
        )
        return torch.add(y, self.mlp(self.norm2(y)))
