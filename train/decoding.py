"""The decoder word by word, with all that does not change kept.

A word attends to those before it, whose keys and values are kept, and to the context, whose keys
and values are computed once; so each word costs one row. What comes out is what `FourM.decode` says
at the last of the words so far, to float noise.

Shapes: R rows (samples, on each side of a guidance), H heads, L words at most, N keys, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fourmill.train.blocks import Attention, DecoderBlock, attend
from fourmill.train.model import FourM

Heads = Float[Tensor, "rows heads _ head"]


@dataclass
class Kept:
    """Keys and values of one block: `[R, H, N, D / H]` of the context, `[R, H, L, D / H]` of words.

    Attributes:
        own_key: of the words so far; what stands behind them means nothing.
    """

    key: Heads
    value: Heads
    own_key: Heads
    own_value: Heads

    @staticmethod
    def of(block: DecoderBlock, context_RND: Tensor, length: int) -> "Kept":
        """Before the first of at most `length` words."""
        attention = block.cross_attn
        normed = block.context_norm(context_RND)
        key, value = map(attention.split_heads, attention.kv(normed).chunk(2, dim=-1))
        key = attention.k_norm(key)
        rows, heads, _, head = key.shape
        own = (each.new_zeros(rows, heads, length, head) for each in (key, value))
        return Kept(key, value, *own)

    def rows(self, index: Int64[Tensor, " kept"]) -> "Kept":
        """Some of the rows."""
        return Kept(*(each[index] for each in vars(self).values()))


class Writer:
    """Writes a sequence, one word a row at a time.

    Args:
        context_RND: what `FourM.encode` returned, with the bias that hides padding.
        length: most words.
        compiled: run steps as one compiled program of fixed shapes, which takes long to make, is
            kept for the process, and pays for many sequences; rows are not left out then.
    """

    def __init__(
        self,
        model: FourM,
        target: str,
        context_RND: Float[Tensor, "rows keys dim"],
        bias: Float[Tensor, "rows 1 1 keys"] | None,
        length: int,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.compiled = compiled
        self._modality = model.domains.index(target)
        self._bias = bias
        self._length = length
        self._written = 0
        self._kept = [Kept.of(block, context_RND, length) for block in _blocks(model)]

    def write(self, token: Int64[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """What the decoder says after one more word of each row."""
        modality = torch.full_like(token, self._modality)[:, None]
        place = torch.tensor([self._written], device=token.device)
        self._written += 1
        y = self.model.embed_targets(modality, place.expand_as(modality), token[:, None])
        if not self.compiled:
            return _advance(self.model, self._kept, y, place, self._bias, None, self._written)[:, 0]
        later = torch.arange(self._length, device=token.device) > place
        hidden = torch.zeros_like(later, dtype=y.dtype).masked_fill(later, -1e30)
        advance = _compiled()
        return advance(
            self.model, self._kept, y, place, self._bias, hidden[None, None, None], self._length
        )[:, 0]

    def keep_rows(self, index: Int64[Tensor, " kept"]) -> None:
        """Go on with some of the rows alone."""
        self._kept = [each.rows(index) for each in self._kept]
        self._bias = None if self._bias is None else self._bias[index]


def _blocks(model: FourM) -> list[DecoderBlock]:
    return list(model.decoder)  # type: ignore[arg-type]


@lru_cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_advance)


def _advance(
    model: FourM,
    kept: list[Kept],
    y: Float[Tensor, "rows 1 dim"],
    place: Int64[Tensor, " 1"],
    bias: Float[Tensor, "rows 1 1 keys"] | None,
    later: Float[Tensor, "1 1 1 words"] | None,
    visible: int,
) -> Float[Tensor, "rows 1 dim"]:
    """One word through all blocks.

    Args:
        place: of the word.
        later: hides words that are not written yet, of the first `visible` ones.
    """
    for block, each in zip(_blocks(model), kept, strict=True):
        own = block.self_attn
        q, k, v = map(own.split_heads, own.qkv(block.norm1(y)).chunk(3, dim=-1))
        each.own_key.index_copy_(2, place, own.k_norm(k).to(each.own_key.dtype))
        each.own_value.index_copy_(2, place, v.to(each.own_value.dtype))
        keys, values = each.own_key[:, :, :visible], each.own_value[:, :, :visible]
        y = y + _joined(own, attend(own.q_norm(q), keys, values, later))
        y = y + _look_up(block.cross_attn, block.query_norm(y), each, bias)
        y = y + block.mlp(block.norm2(y))
    result: Tensor = model.decoder_norm(y)
    return result


def _look_up(attention: Attention, x: Tensor, kept: Kept, bias: Tensor | None) -> Tensor:
    q = attention.q_norm(attention.split_heads(attention.q(x)))
    out = attend(q, kept.key, kept.value, bias) if kept.key.shape[2] else torch.zeros_like(q)
    if bias is not None:  # where all is hidden there is nothing to add
        out = out.masked_fill((bias < 0).all(-1, keepdim=True), 0)
    return _joined(attention, out)


def _joined(attention: Attention, out: Heads) -> Tensor:
    result: Tensor = attention.proj(out.transpose(1, 2).flatten(2))
    return result
