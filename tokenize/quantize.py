"""Quantizers: vectors in, the ids of the nearest codes out.

All have `tokenize` and `lookup`. A cosine code book follows the data by `update`; parallel code
books learn by gradients, through `forward`; a finite scalar quantizer has nothing to learn, and its
`forward` passes gradients on.
Shapes: B batch, L latent width, H and W token rows and columns, N vectors, K codes; G parallel code
books, of width M each.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_CHUNK, _CHUNK_ON_CPU = 2**22, 2**17  # similarities held at once: 16 MiB, and what a cache holds


class CosineCodebook(nn.Module):
    """Codes that follow the vectors assigned to them; the reference's buffers by name."""

    initted: Tensor
    cluster_size: Tensor
    embed: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(codes))
        drawn = torch.randn(codes, width)
        # without values, arithmetic would import torch's compiler: seconds for each process
        self.register_buffer("embed", drawn if drawn.is_meta else F.normalize(drawn, dim=-1))


class CosineQuantizer(nn.Module):
    """The code of largest cosine; codes are moving averages of what is assigned to them.

    Codes are not made unit vectors again when they are looked up, as in the reference: the
    published decoders were trained so.
    """

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self._codebook = CosineCodebook(codes, width)

    @property
    def codes(self) -> Float[Tensor, "K L"]:
        """The code book."""
        return self._codebook.embed

    @property
    def usage(self) -> Float[Tensor, " K"]:
        """Moving average of how many vectors of a batch each code gets."""
        return self._codebook.cluster_size

    def tokenize(self, latents: Float[Tensor, "B L H W"]) -> Int[Tensor, "B H W"]:
        """Ids of the nearest codes."""
        batch, width, rows, columns = latents.shape
        vectors_NL = latents.permute(0, 2, 3, 1).reshape(-1, width)
        return nearest(vectors_NL, self.codes).view(batch, rows, columns)

    def lookup(self, tokens: Int[Tensor, "B H W"]) -> Float[Tensor, "B L H W"]:
        """The codes of ids."""
        return F.embedding(tokens, self.codes).permute(0, 3, 1, 2)

    @torch.no_grad()
    def update(
        self,
        latents: Float[Tensor, "B L H W"],
        tokens: Int[Tensor, "B H W"],
        generator: torch.Generator,
        decay: float = 0.99,
        restart_below: float = 1 / 32,
    ) -> int:
        """Move the codes towards what was assigned to them; all ranks see the sum of all.

        Args:
            generator: draws, from the batch, what replaces codes that nothing is assigned to.
            restart_below: share of an even use of the code book below which a code is replaced.

        Returns:
            How many codes were replaced.
        """
        codebook = self._codebook
        vectors_NL = F.normalize(latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]), dim=-1)
        ids_N = tokens.reshape(-1)
        count_K = torch.bincount(ids_N, minlength=len(codebook.embed)).to(vectors_NL.dtype)
        sum_KL = torch.zeros_like(codebook.embed).index_add_(0, ids_N, vectors_NL)
        if dist.is_initialized():
            dist.all_reduce(count_K)
            dist.all_reduce(sum_KL)
        codebook.cluster_size.lerp_(count_K, 1 - decay)
        moved_KL = codebook.embed.lerp(F.normalize(sum_KL, dim=-1), 1 - decay)
        codebook.embed.copy_(torch.where(count_K[:, None] > 0, moved_KL, codebook.embed))
        even = count_K.sum() / len(count_K)
        return self._restart(codebook.cluster_size < restart_below * even, vectors_NL, generator)

    def _restart(self, is_dead_K: Tensor, vectors_NL: Tensor, generator: torch.Generator) -> int:
        dead = is_dead_K.nonzero()[:, 0]
        if len(dead):
            picks = torch.randint(len(vectors_NL), (len(dead),), generator=generator)
            fresh_DL = vectors_NL[picks.to(vectors_NL.device)]
            if dist.is_initialized():
                dist.broadcast(fresh_DL, src=0)
            self._codebook.embed[dead] = fresh_DL
            # as if used evenly, so that a new code has time to find its vectors
            self._codebook.cluster_size[dead] = self._codebook.cluster_size.mean()
        return len(dead)


class ParallelQuantizer(nn.Module):
    """Code books side by side, each for its share of the latent: a vector becomes G tokens.

    Memcodes, with the reference's parameters by name: a code is found by what its key has in common
    with the latent, and is looked up as its value.

    Args:
        codes: of each book.
        width: of the latents; a multiple of `books`.
    """

    def __init__(self, books: int, codes: int, width: int) -> None:
        super().__init__()
        if width % books:
            raise ValueError(f"found width {width}, expected a multiple of the {books} code books")
        share = width // books
        self.codes = nn.Parameter(torch.randn(books, codes, share))
        self.to_k = _BookwiseLinear(books, share)
        self.to_v = _BookwiseLinear(books, share)

    def tokenize(self, latents: Float[Tensor, "B L H W"]) -> Int[Tensor, "B G H W"]:
        """Ids of the codes of largest product."""
        return self._logits(latents).argmax(dim=-1)

    def lookup(self, tokens: Int[Tensor, "B G H W"]) -> Float[Tensor, "B L H W"]:
        """The values of ids, of all books side by side."""
        values_GKM = self.to_v(self.codes)
        book_G = torch.arange(len(values_GKM), device=tokens.device)[:, None, None]
        found_BGHWM: Tensor = values_GKM[book_G, tokens]
        return found_BGHWM.permute(0, 1, 4, 2, 3).flatten(1, 2)

    def forward(
        self,
        latents: Float[Tensor, "B L H W"],
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Float[Tensor, "B L H W"]:
        """Values for latents: of the nearest codes in evaluation, of drawn ones in training.

        A code is drawn by its softmax probability (Gumbel noise); gradients are those of the
        softmax at `temperature`, to latents, keys and values.
        """
        if not self.training:
            return self.lookup(self.tokenize(latents))
        logits_BGHWK = self._logits(latents)
        noise = torch.empty_like(logits_BGHWK).exponential_(generator=generator).log()
        soft = ((logits_BGHWK - noise) / temperature).softmax(dim=-1)
        hard = F.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft.dtype)
        picked = hard + soft - soft.detach()
        values_GKM = self.to_v(self.codes)
        return torch.einsum("bghwk,gkm->bgmhw", picked, values_GKM).flatten(1, 2)

    def _logits(self, latents: Tensor) -> Float[Tensor, "B G H W K"]:
        keys_GKM = self.to_k(self.codes)
        batch, _, rows, columns = latents.shape
        scaled = latents * keys_GKM.shape[-1] ** -0.5
        parts_BGMHW = scaled.reshape(batch, len(keys_GKM), -1, rows, columns)
        return torch.einsum("bgmhw,gkm->bghwk", parts_BGMHW, keys_GKM)


class _BookwiseLinear(nn.Module):
    """A matrix for each code book."""

    def __init__(self, books: int, share: int) -> None:
        super().__init__()
        bound = share**-0.5
        self.weight = nn.Parameter(torch.empty(books, share, share).uniform_(-bound, bound))

    def forward(self, codes: Float[Tensor, "G K M"]) -> Float[Tensor, "G K M"]:
        """The same shape."""
        return codes @ self.weight


class ScalarQuantizer(nn.Module):
    """Every number of a latent rounded to one of a few levels: no code book, and no dead codes.

    Finite scalar quantization (Mentzer et al. 2023). The levels of a dimension lie evenly from -1
    to 1 (for an even number, to a step below 1), and an id counts through all their combinations,
    the first dimension fastest.

    Args:
        levels: of each dimension, at least 2; latents have as many dimensions, and the vocabulary
            is the product. The paper has 8, 6, 5 for 2^8, 8, 5, 5, 5 for 2^10 and 7, 5, 5, 5, 5
            for 2^12.
    """

    levels: Tensor
    strides: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"found levels {tuple(levels)}, expected some, of at least 2 each")
        strides = [math.prod(levels[:index]) for index in range(len(levels))]
        self.num_codes = math.prod(levels)
        # never on the meta device, from which files bring only what is saved
        for name, values in (("levels", list(levels)), ("strides", strides)):
            self.register_buffer(name, torch.tensor(values, device="cpu"), persistent=False)

    @property
    def codes(self) -> Float[Tensor, "K L"]:
        """All codes, by id."""
        ids = torch.arange(self.num_codes, device=self.levels.device)
        return self.lookup(ids[None, None]).permute(0, 2, 3, 1).flatten(0, 2)

    def tokenize(self, latents: Float[Tensor, "B L H W"]) -> Int[Tensor, "B H W"]:
        """Ids of the nearest codes."""
        return self._ids(self._bounded(latents).round().long())

    def lookup(self, tokens: Int[Tensor, "B H W"]) -> Float[Tensor, "B L H W"]:
        """The codes of ids."""
        steps = tokens[:, None] // _per_channel(self.strides) % _per_channel(self.levels)
        half = _per_channel(self.levels // 2)
        return (steps - half) / half

    def ids_of(self, codes: Float[Tensor, "B L H W"]) -> Int[Tensor, "B H W"]:
        """The inverse of `lookup`: the ids of what it gave."""
        return self._ids((codes * _per_channel(self.levels // 2)).round().long())

    def forward(self, latents: Float[Tensor, "B L H W"]) -> Float[Tensor, "B L H W"]:
        """The nearest codes, with the gradient that not rounding would have."""
        bounded = self._bounded(latents)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / _per_channel(self.levels // 2)

    def _bounded(self, latents: Tensor) -> Tensor:
        """Squashed to between the outer levels, which are whole numbers."""
        # just inside the outer levels, which rounding then gives and never leaves
        reach = (_per_channel(self.levels) - 1) * (1 - 1e-3) / 2
        # an even number of levels has no middle one: they lie from -levels/2 to levels/2 - 1
        offset = 0.5 * (1 - _per_channel(self.levels) % 2)
        # the paper's tangent keeps zero near a level and, of two levels, the slope there alive
        shift = (offset / reach).tan()
        return (latents + shift).tanh() * reach - offset

    def _ids(self, steps: Int[Tensor, "B L H W"]) -> Int[Tensor, "B H W"]:
        return ((steps + _per_channel(self.levels // 2)) * _per_channel(self.strides)).sum(dim=1)


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def nearest(vectors: Float[Tensor, "N L"], codes: Float[Tensor, "K L"]) -> Int[Tensor, " N"]:
    """Id of the code of largest cosine, never holding more than a few rows of all similarities."""
    unit_KL = F.normalize(codes, dim=-1)
    held = _CHUNK_ON_CPU if vectors.device.type == "cpu" else _CHUNK
    chunks = torch.split(F.normalize(vectors, dim=-1), max(1, held // len(codes)))
    return torch.cat([_largest(chunk_NL @ unit_KL.T) for chunk_NL in chunks])


def _largest(similarities: Float[Tensor, "N K"]) -> Int[Tensor, " N"]:
    if similarities.device.type == "cpu" and similarities.dtype == torch.float32:
        # several times as fast as torch's
        return torch.from_numpy(similarities.detach().numpy().argmax(axis=-1))
    return similarities.argmax(dim=-1)
