"""How far a reconstruction is from its input, by kind of modality.

Shapes: B crops, C channels or classes, S side.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.autoencoder import AutoencoderConfig

# below it the smooth L1 is a square; of features in deviations
_BETA, _FEATURE_BETA = 0.2, 1.0


def reconstruction_loss(
    definition: Modality,
    decoded: Float[Tensor, "B C S S"],
    inputs: Float[Tensor, "B C S S"] | Int[Tensor, "B S S"],
    weights: Mapping[str, float] | None = None,
    valid: Bool[Tensor, "B S S"] | None = None,
) -> Float[Tensor, ""]:
    """The weighted sum of some losses over what is valid.

    Features are compared in units of each channel's deviation: some channels are much larger than
    all others.

    Args:
        weights: of `l1`, `l2`, `smooth_l1`, `cross_entropy` (for classes), `cosine`; by default
            cross-entropy for classes, smooth L1 for depth, edges and features, and squares.
        valid: pixels that count; all by default.

    Raises:
        ConfigError: a loss that is not for this kind.
    """
    weights = weights or default_losses(definition)
    scaled, target = decoded, inputs
    if definition.kind is Kind.FEATURE_MAP:
        deviation = inputs.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-3)
        scaled, target = decoded / deviation, inputs / deviation
    total = decoded.new_zeros(())
    for name, weight in weights.items():
        if (name == "cross_entropy") is not (definition.kind is Kind.CLASSES):
            raise ConfigError(
                f"{definition.name}: found loss {name} for {definition.kind.value}; cross_entropy "
                f"is for classes, and they have no other"
            )
        # directions are those of the features themselves
        pair = (decoded, inputs) if name == "cosine" else (scaled, target)
        beta = _FEATURE_BETA if definition.kind is Kind.FEATURE_MAP else _BETA
        total = total + weight * _mean(_LOSSES[name](*pair, beta), valid)
    return total


def default_losses(definition: Modality) -> dict[str, float]:
    """Weights of the losses of a modality, where a configuration has none."""
    return {_DEFAULTS.get(definition.kind, "l2"): 1.0}


def targets_of(
    definition: Modality,
    inputs: Float[Tensor, "B C S S"] | Int[Tensor, "B S S"],
    config: AutoencoderConfig,
) -> Float[Tensor, "B C S S"]:
    """What a linear decoder should give back: the values themselves, classes one-hot."""
    if definition.kind is not Kind.CLASSES:
        return inputs
    return F.one_hot(inputs, config.labels).permute(0, 3, 1, 2).to(torch.float32)


def _mean(losses: Tensor, valid: Tensor | None) -> Tensor:
    """Over valid pixels; of a batch without any, nothing."""
    if valid is None:
        return losses.mean()
    if losses.ndim == 4:
        losses = losses.mean(dim=1)
    return (losses * valid).sum() / valid.sum().clamp(min=1)


_LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "l1": lambda decoded, inputs, _: (decoded - inputs).abs(),
    "l2": lambda decoded, inputs, _: (decoded - inputs).square(),
    "smooth_l1": lambda decoded, inputs, beta: F.smooth_l1_loss(
        decoded, inputs, beta=beta, reduction="none"
    ),
    "cross_entropy": lambda decoded, inputs, _: F.cross_entropy(decoded, inputs, reduction="none"),
    "cosine": lambda decoded, inputs, _: 1 - F.cosine_similarity(decoded, inputs, dim=1),
}

_DEFAULTS = {
    Kind.CLASSES: "cross_entropy",
    Kind.DEPTH: "smooth_l1",
    Kind.EDGE: "smooth_l1",
    Kind.FEATURE_MAP: "smooth_l1",
}
