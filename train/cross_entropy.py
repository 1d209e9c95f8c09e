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
        x_gradient = torch.empty_like(x_TD) if needs_x else None
        weight_gradient = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        total = x_TD.new_zeros((), dtype=torch.float32)
        for first in range(0, len(x_TD), size):
            rows = slice(first, first + size)
            label = label_T[rows, None]
            logits = (x_TD[rows] @ weight_VD.T).float()
            norm = logits.logsumexp(1, keepdim=True)
            total += (norm - logits.gather(1, label)).sum()
            if x_gradient is None and weight_gradient is None:
                continue
            surprise = logits.sub_(norm).exp_()  # what is predicted, less what is right
            surprise.scatter_add_(1, label, torch.full_like(norm, -1.0))
            surprise = surprise.to(x_TD.dtype)
            if x_gradient is not None:
                torch.mm(surprise, weight_VD, out=x_gradient[rows])
            if weight_gradient is not None:
                weight_gradient += surprise.T @ x_TD[rows]
        ctx.dtype = weight_VD.dtype
        ctx.save_for_backward(x_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x_gradient, weight_gradient = ctx.saved_tensors
        return (
            None if x_gradient is None else x_gradient * gradient.to(x_gradient.dtype),
            None if weight_gradient is None else (weight_gradient * gradient).to(ctx.dtype),
            None,
            None,
        )
