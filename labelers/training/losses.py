"""What the heads are trained to make small; unknown pixels count for nothing."""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from fourmill.labelers.training.views import UNKNOWN_CLASS, UNKNOWN_NORMAL

_SCALES = 4
_PLAIN = 0.5  # per unit of disparity: 1 / metre


def disparity_loss(
    predicted: Float[Tensor, "B H W"], depth: Float[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Scale- and shift-invariant, with gradients at four scales (Ranftl et al. 2020, MiDaS).

    Added to it, a share of the plain error holds scale and shift in place. They would drift apart
    between images otherwise, and within those that look like no training image.

    Args:
        depth: metres; 0 where it is unknown.
    """
    known = depth > 0
    truth = torch.where(known, 1 / depth.clamp(min=0.5), 0)
    error = torch.where(known, _normalised(predicted, known) - _normalised(truth, known), 0)
    plain = torch.where(known, predicted - truth, 0)
    loss = (error.abs().sum() + _PLAIN * plain.abs().sum()) / known.sum().clamp(min=1)
    for scale in range(_SCALES):
        step = 2**scale
        loss = loss + 0.5 * _gradients(error[:, ::step, ::step], known[:, ::step, ::step])
    return loss


def normal_loss(
    predicted: Float[Tensor, "B 3 H W"], normals: UInt8[Tensor, "B H W 3"]
) -> Float[Tensor, ""]:
    """One minus the cosine of the angle, on average.

    Args:
        normals: `127.5 * (n + 1)`; (128, 128, 128) where unknown.
    """
    known = (normals != UNKNOWN_NORMAL).any(dim=-1)
    truth = functional.normalize(normals.permute(0, 3, 1, 2).float() / 127.5 - 1, dim=1)
    error = torch.where(known, 1 - (predicted * truth).sum(dim=1), 0)
    return error.sum() / known.sum().clamp(min=1)


def class_loss(
    logits: Float[Tensor, "B classes h2 w2"],
    classes: UInt8[Tensor, "B H W"],
    weights: Float[Tensor, " classes"],
) -> Float[Tensor, ""]:
    """Cross-entropy with a weight for each class.

    Args:
        classes: at twice the logits' resolution; 255 where unknown.
    """
    truth = classes[:, ::2, ::2].long()
    error = functional.cross_entropy(
        logits, truth, weights, ignore_index=UNKNOWN_CLASS, reduction="sum"
    )
    known = truth != UNKNOWN_CLASS
    total = weights[truth[known]].sum() if known.any() else weights.sum()
    return error / total


def class_weights(counts: Int[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """One over the root of each class's share, so that lamps count beside walls; from 0.3 to 5."""
    shares = counts.float() / counts.sum().clamp(min=1)
    weights = shares.clamp(min=1e-6).rsqrt()
    # of the mean over pixels, so that the loss is as large as an unweighted one
    return (weights / (weights * shares).sum()).clamp(0.3, 5)


def _normalised(
    values: Float[Tensor, "B H W"], known: Bool[Tensor, "B H W"]
) -> Float[Tensor, "B H W"]:
    """With median 0 and mean absolute deviation 1 over what is known of each image."""
    # every second row and column: a quarter of the pixels has nearly the same median
    some = torch.where(known, values.detach(), torch.nan)[:, ::2, ::2].flatten(1)
    median = some.nanmedian(dim=1).values.nan_to_num(0)[:, None, None]
    deviation = torch.where(known, values - median, 0)
    counts = known.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return deviation / (deviation.abs().sum(dim=(1, 2), keepdim=True) / counts).clamp(min=1e-3)


def _gradients(error: Float[Tensor, "B h w"], known: Bool[Tensor, "B h w"]) -> Float[Tensor, ""]:
    across = (error[:, :, 1:] - error[:, :, :-1]).abs()
    down = (error[:, 1:] - error[:, :-1]).abs()
    both_across, both_down = known[:, :, 1:] & known[:, :, :-1], known[:, 1:] & known[:, :-1]
    pairs = (both_across.sum() + both_down.sum()).clamp(min=1)
    return (torch.where(both_across, across, 0).sum() + torch.where(both_down, down, 0).sum()) / (
        pairs
    )
