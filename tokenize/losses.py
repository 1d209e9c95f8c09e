"""How far a reconstruction is from its input, by kind of modality.

Shapes: B crops, C channels or classes, S side.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.autoencoder import AutoencoderConfig


def reconstruction_loss(
    definition: Modality,
    decoded: Float[Tensor, "B C S S"],
    inputs: Float[Tensor, "B C S S"] | Int[Tensor, "B S S"],
) -> Float[Tensor, ""]:
    """Cross-entropy for classes, smooth L1 for depth and edges, squares for the rest.

    Features are compared in units of each channel's deviation: some channels are much larger than
    all others.
    """
    if definition.kind is Kind.CLASSES:
        return F.cross_entropy(decoded, inputs)
    if definition.kind is Kind.FEATURE_MAP:
        deviation = inputs.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-3)
        return F.smooth_l1_loss(decoded / deviation, inputs / deviation)
    if definition.kind in (Kind.DEPTH, Kind.EDGE):
        return F.smooth_l1_loss(decoded, inputs, beta=0.2)
    return F.mse_loss(decoded, inputs)


def targets_of(
    definition: Modality,
    inputs: Float[Tensor, "B C S S"] | Int[Tensor, "B S S"],
    config: AutoencoderConfig,
) -> Float[Tensor, "B C S S"]:
    """What a linear decoder should give back: the values themselves, classes one-hot."""
    if definition.kind is not Kind.CLASSES:
        return inputs
    return F.one_hot(inputs, config.labels).permute(0, 3, 1, 2).to(torch.float32)
