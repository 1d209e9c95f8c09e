"""What a tokenizer has to beat: coding each patch by its mean, or by the nearest of k-means.

Both take and give values as a VQ network sees them; see `metrics.py`.
Shapes: B crops, C channels, S side; M patches, P values of a patch, K codes, D draws,
E width of a class.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

_NUM_VALUES = 2**25  # in the patches that codes are made of, 128 MiB
_NUM_PATCHES = 50_000
_NUM_SEED_PATCHES = 32_000  # for k-means++; of 8,000, codes of photographs lose 0.1 dB more
_SEED_WIDTH = 128  # numbers of a patch that k-means++ compares; more are projected at random
_SEED_DRAWS = 4
_LLOYD_STEPS = 8
_CHUNK = 4096  # patches compared with all codes at once
_MOST_CLASS_WIDTH = 32


def patch_mean(inputs: Tensor, patch: int) -> Tensor:
    """Each patch's exact mean, or its most frequent class: one number a channel, not one of codes.

    Args:
        inputs: values `[B, C, S, S]`, or ids of classes `[B, S, S]`.
        patch: side of a patch in pixels; divides S.
    """
    if inputs.is_floating_point():
        means = F.avg_pool2d(inputs, patch)
        return means.repeat_interleave(patch, -2).repeat_interleave(patch, -1)
    side = inputs.shape[-1] // patch
    blocks = inputs.view(-1, side, patch, side, patch).transpose(2, 3).flatten(3)
    frequent = blocks.mode(dim=-1).values
    return frequent.repeat_interleave(patch, -2).repeat_interleave(patch, -1)


class PatchCodes:
    """Patches by the nearest of as many patches as a tokenizer has codes (Euclidean k-means).

    Args:
        inputs: crops of training samples, values or ids of classes; up to 50,000 of their patches
            are used, drawn from all.
        num_codes: at most; there are no more than patches.
        num_labels: ids of classes, the unknown one counted; 0 for values.
    """

    def __init__(
        self, inputs: Tensor, patch: int, num_codes: int, num_labels: int = 0, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.patch = patch
        self._class_vectors = _class_vectors(num_labels, generator) if num_labels else None
        width = patch**2 * (inputs.shape[1] if inputs.ndim == 4 else self._width)
        count = min(_NUM_PATCHES, max(num_codes, _NUM_VALUES // width))
        # crop by crop, so that never all patches are there at once
        share = -(-count // len(inputs))
        chosen = []
        for crop in torch.split(inputs, 1):
            patches_MP = self._patches(crop)
            chosen.append(patches_MP[_choose(len(patches_MP), share, generator)])
        patches_MP = torch.cat(chosen)
        patches_MP = patches_MP[_choose(len(patches_MP), count, generator)]
        self.codes_KP = k_means(patches_MP, num_codes, generator)

    @property
    def _width(self) -> int:
        return 0 if self._class_vectors is None else self._class_vectors.shape[1]

    def tokenize(self, inputs: Tensor) -> Int[Tensor, "B h w"]:
        """Ids of the nearest codes."""
        side = inputs.shape[-1] // self.patch
        ids = [_nearest(self._patches(each), self.codes_KP) for each in torch.split(inputs, 1)]
        return torch.stack(ids).view(len(inputs), side, side)

    def lookup(self, ids: Int[Tensor, "B h w"]) -> Tensor:
        """The codes' patches side by side, values or ids of classes."""
        side = ids.shape[-1] * self.patch
        columns = self.codes_KP[ids.flatten(1)].transpose(1, 2)
        values = F.fold(columns, side, self.patch, stride=self.patch)
        if self._class_vectors is None:
            return values
        likeness = torch.einsum("behw,le->blhw", values, self._class_vectors)
        return likeness.argmax(dim=1)

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """What is left of crops."""
        return torch.cat([self.lookup(self.tokenize(each)) for each in torch.split(inputs, 8)])

    def _patches(self, inputs: Tensor) -> Float[Tensor, "M P"]:
        values = inputs
        if self._class_vectors is not None:
            values = self._class_vectors[inputs].permute(0, 3, 1, 2)
        return F.unfold(values, self.patch, stride=self.patch).transpose(1, 2).flatten(0, 1)


def nearest_parts(
    vectors: Float[Tensor, "B C"], training: Float[Tensor, "N C"], books: int, num_codes: int
) -> Float[Tensor, "B C"]:
    """Vectors by the nearest of k-means, each of `books` parts by codes of its own.

    As many tokens of as many codes as a tokenizer with parallel code books has. Channels that are
    left over go to the first parts.
    """
    generator = torch.Generator().manual_seed(0)
    parts = []
    for ours, known in zip(
        vectors.tensor_split(books, 1), training.tensor_split(books, 1), strict=True
    ):
        codes_KP = k_means(known, num_codes, generator)
        parts.append(codes_KP[_nearest(ours, codes_KP)])
    return torch.cat(parts, dim=1)


def k_means(
    points_MP: Float[Tensor, "M P"], num_codes: int, generator: torch.Generator
) -> Float[Tensor, "K P"]:
    """Lloyd's algorithm from a k-means++ start; never more codes than points."""
    seeds_NP = points_MP[
        _choose(len(points_MP), max(_NUM_SEED_PATCHES, 2 * num_codes), generator)
    ]  # fmt: skip
    if num_codes >= len(seeds_NP):
        return seeds_NP
    codes_KP = seeds_NP[_spread(seeds_NP, num_codes, generator)]
    for _ in range(_LLOYD_STEPS):
        ids_M = _nearest(points_MP, codes_KP)
        counts_K1 = torch.bincount(ids_M, minlength=num_codes)[:, None]
        sums_KP = torch.zeros_like(codes_KP).index_add_(0, ids_M, points_MP)
        codes_KP = torch.where(counts_K1 > 0, sums_KP / counts_K1.clamp(min=1), codes_KP)
    return codes_KP


def _spread(points_NP: Tensor, num_codes: int, generator: torch.Generator) -> list[int]:
    """k-means++ with several draws a code, of which the one is kept that leaves least.

    Each is drawn with the squared distance from the codes before as its weight.
    """
    width = points_NP.shape[1]
    if width > _SEED_WIDTH:  # distances stay nearly as they are, and all is drawn by chance anyway
        projection = torch.randn(width, _SEED_WIDTH, generator=generator) / _SEED_WIDTH**0.5
        points_NP = points_NP @ projection
    draws_KD = torch.rand((num_codes, _SEED_DRAWS), generator=generator, dtype=torch.float64)
    squares_N = points_NP.square().sum(1)
    distance_N = torch.ones(len(points_NP))
    picks: list[int] = []
    for draws_D in draws_KD:
        ladder_N = distance_N.double().cumsum(0)
        drawn_D = torch.searchsorted(ladder_N, draws_D * ladder_N[-1]).clamp(max=len(points_NP) - 1)
        products_DN = points_NP[drawn_D] @ points_NP.T
        apart_DN = (squares_N + squares_N[drawn_D, None] - 2 * products_DN).clamp(min=0)
        left_DN = apart_DN.minimum(distance_N) if picks else apart_DN
        best = int(left_DN.sum(1).argmin())
        distance_N = left_DN[best]
        picks.append(int(drawn_D[best]))
    return picks


def _nearest(points_MP: Tensor, codes_KP: Tensor) -> Int[Tensor, " M"]:
    half_squares_K = codes_KP.square().sum(1) / 2
    chunks = torch.split(points_MP, _CHUNK)
    return torch.cat([(half_squares_K - each @ codes_KP.T).argmin(1) for each in chunks])


def _class_vectors(num_labels: int, generator: torch.Generator) -> Float[Tensor, "labels E"]:
    """As far from each other as can be: one-hot, or random directions where there are many."""
    if num_labels <= _MOST_CLASS_WIDTH:
        return torch.eye(num_labels)
    return F.normalize(torch.randn(num_labels, _MOST_CLASS_WIDTH, generator=generator), dim=1)


def _choose(total: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(total, generator=generator)[:count]
