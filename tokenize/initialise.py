"""Start a VQ autoencoder from its data: principal components, k-means, and a linear decoder.

A network that starts so already codes patches as well as vector quantization of patches can, and
training adds what patches know of each other. It makes seconds on a CPU enough where an ordinary
start takes hours. All stays an ordinary `VQAutoencoder`; only the start is not random.

Shapes: M patches, P values of a patch, R components, L latent width (R + 1), D width, K codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.tokenize.autoencoder import Transformer, VQAutoencoder
from fourmill.tokenize.quantize import CosineQuantizer, nearest

_NUM_PATCHES = 80_000
_NUM_SEED_PATCHES = 8_000  # for k-means++, whose cost is their number times the codes
_LLOYD_STEPS = 15
_RADIUS = 4.0  # of the constant direction, in standard deviations of a patch
_LOGIT = 4.0  # of what a linear decoder is sure of, and minus that of all else
_RIDGE = 1e-4
_EXACT_WIDTH = 2048  # of patches whose components are exact; of wider ones that takes minutes
_POWERS = 4  # iterations that make approximate components near to exact ones


@torch.no_grad()
def initialise(model: VQAutoencoder, inputs: Tensor, targets: Tensor, seed: int) -> None:
    """Set all weights from a few hundred crops.

    The cosine quantizer only sees directions, so the latents get a constant component beside the
    principal ones: with it, nearby directions are nearby patches, brightness included.

    Args:
        inputs: as `model.encode` takes them: values `[B, C, H, W]` or class ids `[B, H, W]`.
        targets: `[B, C, H, W]`, what the decoder should give back; one-hot for classes.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    values = inputs
    if config.labels:
        nn.init.orthogonal_(model.cls_emb.weight, generator=generator)
        values = model.cls_emb(inputs).permute(0, 3, 1, 2)
        targets = sure_logits(targets)
    patches_MP = _patches(values, config.patch)
    patches_MP = patches_MP[_choose(len(patches_MP), _NUM_PATCHES, generator)]
    latents_ML = _start_encoder(model, patches_MP, generator)
    codes_KL, counts_K = cluster(F.normalize(latents_ML, dim=-1), config.codes, generator)
    assert isinstance(model.quantize, CosineQuantizer), "there is a code book to start"
    codebook = model.quantize._codebook
    codebook.embed.copy_(codes_KL)
    # what an even batch would have left behind; the scale is forgotten within some steps
    codebook.cluster_size.copy_(counts_K)
    tokens = torch.cat([model.tokenize(each) for each in torch.split(inputs, 32)])
    _start_decoder(model, model.quantize.lookup(tokens), targets, generator)


def sure_logits(shares: Tensor) -> Tensor:
    """What a linear decoder should give back of ones and zeros that it decodes to logits."""
    return _LOGIT * (2 * shares - 1)


def cluster(units_ML: Tensor, num_codes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spherical k-means from a k-means++ start: unit codes `[K, L]`, and how many each got."""
    codes_KL = _spread(
        units_ML[_choose(len(units_ML), _NUM_SEED_PATCHES, generator)], num_codes, generator
    )
    counts_K = torch.zeros(num_codes)
    for _ in range(_LLOYD_STEPS):
        ids_M = nearest(units_ML, codes_KL)
        counts_K = torch.bincount(ids_M, minlength=num_codes).float()
        sums_KL = torch.zeros_like(codes_KL).index_add_(0, ids_M, units_ML)
        codes_KL = torch.where(counts_K[:, None] > 0, F.normalize(sums_KL, dim=-1), codes_KL)
    return codes_KL, counts_K


def _spread(units_ML: Tensor, num_codes: int, generator: torch.Generator) -> Tensor:
    """k-means++: each code is drawn with the squared distance from those before as its weight."""
    draws = torch.rand(num_codes, generator=generator, dtype=torch.float64).tolist()
    distance_M = torch.ones(len(units_ML))
    picks: list[int] = []
    for draw in draws:
        ladder_M = distance_M.double().cumsum(0)
        pick = int(torch.searchsorted(ladder_M, draw * ladder_M[-1]).clamp(max=len(units_ML) - 1))
        picks.append(pick)
        distance_M = torch.minimum(distance_M, (1 - units_ML @ units_ML[pick]).clamp(min=0))
    return units_ML[picks]


def _start_encoder(model: VQAutoencoder, patches_MP: Tensor, generator: torch.Generator) -> Tensor:
    """Make the encoder the principal components, blocks the identity; latents of the patches."""
    config, encoder = model.config, model.encoder
    mean_P = patches_MP.mean(0)
    centred_MP = patches_MP - mean_P
    rank = min(config.latent - 1, patches_MP.shape[1], config.dim)
    components_RP, variances_R = _components(centred_MP, rank, generator)
    deviation = variances_R.sum().sqrt().clamp(min=1e-6)

    # room_DR @ components: into directions that positions leave free, as large as positions are
    room_DR = _room(encoder, rank, generator)
    gain = config.dim**0.5 / 2 / deviation
    weight_DP = gain * room_DR @ components_RP
    encoder.proj.weight.copy_(weight_DP.view_as(encoder.proj.weight))
    _bias(encoder.proj).copy_(-weight_DP @ mean_P)
    _still(encoder)

    # about unit length: the constant first, then the components
    unit = (1 + _RADIUS**2) ** -0.5
    model.quant_proj.weight.zero_()
    model.quant_proj.weight[1 : rank + 1, :, 0, 0] = room_DR.T * (unit / deviation / gain)
    bias_L = _bias(model.quant_proj).zero_()
    bias_L[0] = unit * _RADIUS
    latents_ML = F.pad(centred_MP @ components_RP.T * (unit / deviation), (1, 0), value=0.0)
    latents_ML[:, 0] = unit * _RADIUS
    return F.pad(latents_ML, (0, config.latent - rank - 1))


def _components(centred_MP: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The first principal components `[R, P]`, and their variances."""
    count, width = centred_MP.shape
    if width <= _EXACT_WIDTH:
        variances_P, vectors_PP = torch.linalg.eigh(centred_MP.T @ centred_MP / count)
        return vectors_PP[:, -rank:].flip(1).T, variances_P[-rank:].clamp(min=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        more = min(2 * rank, count, width)
        _, values_R, vectors_PR = torch.svd_lowrank(centred_MP, more, _POWERS)
    return vectors_PR[:, :rank].T, values_R[:rank].square() / count


def _start_decoder(
    model: VQAutoencoder, codes: Tensor, targets: Tensor, generator: torch.Generator
) -> None:
    """Make the decoder the best linear map from codes, and those around them, to patches.

    Reduced-rank ridge regression; the blocks are the identity.
    """
    config, decoder = model.config, model.decoder
    window = 2 * config.reach + 1
    around_MN = F.unfold(codes, window, padding=config.reach).transpose(1, 2).flatten(0, 1)
    values_MP = _patches(targets, config.patch)
    mean_N, mean_P = around_MN.mean(0), values_MP.mean(0)
    around_MN, values_MP = around_MN - mean_N, values_MP - mean_P
    gram_NN = around_MN.T @ around_MN / len(around_MN)
    scale = gram_NN.diagonal().mean().clamp(min=1e-12)  # labels may be all alike
    ridge_NN = _RIDGE * scale * torch.eye(len(gram_NN))
    map_NP = torch.linalg.solve(gram_NN + ridge_NN, around_MN.T @ values_MP / len(around_MN))
    # principal components of what is fitted, whose covariance is map_NP.T @ gram_NN @ map_NP, by a
    # root of the gram matrix, which is the smaller one for large patches
    squares_N, turn_NN = torch.linalg.eigh(gram_NN)
    root_NN = squares_N.clamp(min=0).sqrt()[:, None] * turn_NN.T
    _, sizes, vectors = torch.linalg.svd(root_NN @ map_NP, full_matrices=False)
    rank = min(*map_NP.shape, config.dim * 3 // 4)
    best_PR = vectors[:rank].T

    room_DR = _room(decoder, rank, generator)
    gain = config.dim**0.5 / 2 / sizes[:rank].square().sum().sqrt().clamp(min=1e-6)
    into_DN = gain * room_DR @ best_PR.T @ map_NP.T
    model.post_quant_proj.weight.copy_(into_DN.view_as(model.post_quant_proj.weight))
    _bias(model.post_quant_proj).copy_(-into_DN @ mean_N)
    decoder.out_proj.weight.copy_(best_PR @ room_DR.T / gain)
    decoder.out_proj.bias.copy_(mean_P)
    _still(decoder)


def _room(transformer: Transformer, rank: int, generator: torch.Generator) -> Tensor:
    """`rank` orthonormal directions `[D, rank]`, outside of what positions use if there is room."""
    positions_DN = transformer.pos_emb[0].flatten(1)
    left, sizes, _ = torch.linalg.svd(positions_DN, full_matrices=True)
    used = min(int((sizes > 1e-3 * sizes[0]).sum()), left.shape[0] - rank)
    free = left[:, used:]
    turn = torch.linalg.qr(torch.randn(free.shape[1], rank, generator=generator))[0]
    directions: Tensor = free @ turn
    return directions


def _still(transformer: Transformer) -> None:
    """Make every residual branch add nothing at first."""
    for name, parameter in transformer.named_parameters():
        if name.rpartition(".")[0].endswith(("attn.proj", "mlp.fc2")):
            nn.init.zeros_(parameter)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _patches(images: Tensor, patch: int) -> Tensor:
    """`[B * h * w, C * patch * patch]`."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2).flatten(0, 1)


def _choose(total: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(total, generator=generator)[:count]
