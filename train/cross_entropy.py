"""Cross-entropy of a linear layer's predictions, without ever holding all of its logits.

A large vocabulary makes logits that are far larger than all else in a step. So they are made for
some rows at a time, with their gradients at once, and forgotten.

Shapes: T rows, D width, V vocabulary.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_LOGITS = 2**26  # that are held at once, 256 MiB


def summed_cross_entropy(
    x_TD: Float[Tensor, "rows dim"],
    weight_VD: Float[Tensor, "vocab dim"],
    label_T: Int64[Tensor, " rows"],
    most_logits: int = _LOGITS,
) -> Float[Tensor, ""]:
    """The sum over rows of the cross-entropy of `x @ weight.T`, in nats and float32.

    Products are computed in the type of autocast, sums over the vocabulary in float32.

    Args:
        most_logits: numbers that may be held at once.
    """
    if torch.is_autocast_enabled(x_TD.device.type):
        dtype = torch.get_autocast_dtype(x_TD.device.type)
        x_TD, weight_VD = x_TD.to(dtype), weight_VD.to(dtype)
    size = max(1, most_logits // len(weight_VD))
    result: Tensor = _Summed.apply(x_TD, weight_VD, label_T, size)
    return result


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_VD: Tensor, label_T: Tensor, size: int) -> Tensor:
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        total = x_TD.new_zeros((), dtype=torch.float32)
        x_gradients: list[Tensor] = []
        weight_gradient: Tensor | None = None
        parts = zip(torch.split(x_TD, size), torch.split(label_T, size), strict=True)
        for x_CD, label_C in parts:
            odds_CV = (x_CD @ weight_VD.T).float()
            right_C = odds_CV.gather(1, label_C[:, None])[:, 0]
            top_C = odds_CV.amax(1)
            odds_CV.sub_(top_C[:, None]).exp_()
            sum_C = odds_CV.sum(1)
            total += (sum_C.log() + top_C - right_C).sum()
            # the gradient is probabilities less what is right: odds / sum - 1 at the label. The
            # difference is taken in float32; the division is left to what is smaller than logits
            odds_CV.scatter_add_(1, label_C[:, None], -sum_C[:, None])
            wrong_CV, share_C1 = odds_CV.to(x_TD.dtype), sum_C.reciprocal()[:, None]
            if needs_x:
                x_gradients.append((wrong_CV @ weight_VD) * share_C1)
            if needs_weight:
                found_VD = (wrong_CV.T @ (x_CD * share_C1).to(x_TD.dtype)).float()
                weight_gradient = (
                    found_VD if weight_gradient is None else weight_gradient + found_VD
                )
        ctx.gradients = torch.cat(x_gradients) if x_gradients else None, weight_gradient
        ctx.types = x_TD.dtype, weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # used up: they are scaled in place, for that of the weight is large
        x_gradient, weight_gradient = ctx.gradients
        del ctx.gradients
        x_type, weight_type = ctx.types
        return (
            None if x_gradient is None else x_gradient.mul_(gradients[0]).to(x_type),
            None if weight_gradient is None else weight_gradient.mul_(gradients[0]).to(weight_type),
            None,
            None,
        )
