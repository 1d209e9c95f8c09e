"""Embeddings of the selected tokens: one table for all modalities, one lookup for all slots.

A token's row is its id plus the offset of its modality, so that the number of modalities costs
nothing, and nothing that was not selected is embedded.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fourmill.manifests.modalities import Masking, Modality
from fourmill.train.domains import (
    CONTINUOUS,
    SEQUENCES,
    Domains,
    continuous_width,
    num_positions,
    position_limit,
)
from fourmill.train.positions import position_table
from fourmill.train.selection import Continuous

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue, 0..1: pixels are normalised with them."""


class TokenTable(nn.Module):
    """Token embeddings of several modalities in one table `[rows, dim]`.

    Args:
        share_text: text-like modalities, which have one vocabulary, share one part of the table.
    """

    def __init__(self, domains: Domains, names: Sequence[str], dim: int, share_text: bool) -> None:
        super().__init__()
        self.ranges = _ranges([domains.modality(name) for name in names], share_text)
        rows = max((stop for _, stop in self.ranges.values()), default=0)
        self.weight = nn.Parameter(torch.empty(rows, dim))
        offsets = [self.ranges.get(name, (0, 0))[0] for name in domains.names]
        self.offset: Tensor
        self.register_buffer("offset", torch.tensor([*offsets, 0]), persistent=False)

    def forward(
        self, modality: Int64[Tensor, "batch slots"], token: Int64[Tensor, "batch slots"]
    ) -> Float[Tensor, "batch slots dim"]:
        """Embeddings of tokens; what it gives for padding and for pixels means nothing."""
        return nn.functional.embedding(token + self.offset[modality], self.weight)

    def heads(self) -> dict[str, Float[Tensor, "vocab dim"]]:
        """The part of each modality, as the weight of the layer that predicts it."""
        bounds = sorted(set(self.ranges.values()))
        parts = torch.split(self.weight, [stop - start for start, stop in bounds])
        by_range = dict(zip(bounds, parts, strict=True))
        return {name: by_range[each] for name, each in self.ranges.items()}


class PositionTable(nn.Module):
    """Embeddings of positions: sine-cosine ones, and learned ones where a modality has them.

    Args:
        names: modalities whose learned embeddings are kept here.
        limited: give positions from `position_limit` on the embedding of position 0.
    """

    def __init__(self, domains: Domains, names: Sequence[str], dim: int, limited: bool) -> None:
        super().__init__()
        counts = [num_positions(each) for each in domains.modalities]
        starts = [0, *accumulate(counts)]
        self.ranges = dict(zip(domains.names, pairwise(starts), strict=True))
        tables = [position_table(each, dim) for each in domains.modalities]
        self.fixed: Tensor
        self.offset: Tensor
        self.limit: Tensor
        self.register_buffer("fixed", torch.cat(tables), persistent=False)
        self.register_buffer("offset", torch.tensor([*starts[:-1], 0]), persistent=False)
        limits = [position_limit(each) for each in domains.modalities] if limited else counts
        self.register_buffer("limit", torch.tensor([*limits, 1]), persistent=False)
        self.learned = nn.ParameterDict(
            {
                each.name: nn.Parameter(torch.empty(each.max_tokens, dim))
                for each in domains.modalities
                if each.learned_positions and each.name in names
            }
        )

    def forward(
        self, modality: Int64[Tensor, "batch slots"], position: Int64[Tensor, "batch slots"]
    ) -> Float[Tensor, "batch slots dim"]:
        """Embeddings of positions; what it gives for padding means nothing."""
        table = self.fixed
        if self.learned:
            parts = [
                self.learned[name] if name in self.learned else self.fixed[start:stop]
                for name, (start, stop) in self.ranges.items()
            ]
            table = torch.cat(parts)
        within = torch.where(position < self.limit[modality], position, 0)
        return nn.functional.embedding(within + self.offset[modality], table)


class ContinuousProjection(nn.Module):
    """Pixels of patches, or vectors, to the model's width.

    Pixels are normalised with the statistics of ImageNet here, on the device: they travel as uint8.
    """

    def __init__(self, modality: Modality, index: int, dim: int) -> None:
        super().__init__()
        self.index = index
        is_pixels = modality.masking is Masking.PIXELS
        self.proj = nn.Linear(continuous_width(modality), dim, bias=not is_pixels)
        repeat = modality.patch_size**2 if is_pixels else 0
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN * repeat), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD * repeat), persistent=False)

    def forward(
        self,
        rows: Continuous,
        modality: Int64[Tensor, "batch slots"],
        source: Int64[Tensor, "batch slots"],
    ) -> Float[Tensor, "batch slots dim"]:
        """Embeddings of the slots of this modality, zero elsewhere."""
        is_mine = (modality == self.index)[..., None]
        width = rows.shape[-1]
        source = torch.where(is_mine, source[..., None], 0)  # others may have more rows
        chosen = rows.gather(1, source.expand(-1, -1, width))
        return torch.where(is_mine, self.embed(chosen), 0)

    def embed(self, rows: Continuous) -> Float[Tensor, "batch length dim"]:
        """Embeddings of some patches or vectors; bytes are normalised first."""
        if rows.dtype == torch.uint8:
            rows = (rows / 255 - self.mean) / self.std
        projected: Tensor = self.proj(rows.to(self.proj.weight.dtype))
        return projected


class InputEmbedding(nn.Module):
    """What the encoder reads: content of the selected inputs, whatever it is made of."""

    def __init__(self, domains: Domains, dim: int, share_text: bool) -> None:
        super().__init__()
        continuous = [
            name for name in domains.inputs if domains.modality(name).masking in CONTINUOUS
        ]
        tokens = [name for name in domains.inputs if name not in continuous]
        self.tokens = TokenTable(domains, tokens, dim, share_text)
        self.continuous = nn.ModuleDict(
            {
                name: ContinuousProjection(domains.modality(name), domains.index(name), dim)
                for name in continuous
            }
        )
        flags = torch.tensor([*(name in continuous for name in domains.names), True])
        self.is_continuous: Tensor
        self.register_buffer("is_continuous", flags, persistent=False)

    def forward(
        self,
        modality: Int64[Tensor, "batch slots"],
        token: Int64[Tensor, "batch slots"],
        source: Int64[Tensor, "batch slots"],
        continuous: Mapping[str, Continuous],
    ) -> Float[Tensor, "batch slots dim"]:
        """Embeddings of content, zero for padding."""
        x: Tensor
        if len(self.tokens.weight):
            x = self.tokens(modality, token)
            x = x.masked_fill(self.is_continuous[modality][..., None], 0)
        else:
            x = self.tokens.weight.new_zeros(*modality.shape, self.tokens.weight.shape[1])
        for name, projection in self.continuous.items():
            if name in continuous:
                x = x + projection(continuous[name], modality, source)
        return x


def _ranges(modalities: Sequence[Modality], share_text: bool) -> dict[str, tuple[int, int]]:
    """Rows `[start, stop)` of each modality."""
    texts = [each for each in modalities if share_text and each.masking in SEQUENCES]
    text_rows = max((each.vocab_size for each in texts), default=0)
    ranges = {each.name: (0, text_rows) for each in texts}
    start = text_rows
    for each in modalities:
        if each.name not in ranges:
            ranges[each.name] = (start, start + each.vocab_size)
            start += each.vocab_size
    return ranges
