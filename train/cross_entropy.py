"""Cross-entropy of predictions by several heads, without ever holding all of their logits.

Large vocabularies make logits that are far larger than all else in a step. So they are made for
some rows at a time, with their gradients at once, and forgotten; and the gradient of all heads,
which are parts of one table, is one tensor from the start.

Shapes: T rows, C rows at a time, D width, R rows of the table, V vocabulary, K heads.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_LOGITS = 2**26  # that are held at once, 256 MiB


class Head(NamedTuple):
    """Rows `start` to `stop` of the table, which predict the next `rows` rows of the output."""

    start: int
    stop: int
    rows: int


def cross_entropies(
    x_TD: Float[Tensor, "rows dim"],
    table_RD: Float[Tensor, "table dim"],
    label_T: Int64[Tensor, " rows"],
    heads: Sequence[Head],
    weight_K: Float[Tensor, " heads"],
    most_logits: int = _LOGITS,
) -> tuple[Float[Tensor, ""], Float[Tensor, " heads"]]:
    """Cross-entropy in nats and float32: its weighted sum, and its sum by head.

    Products are computed in the type of autocast, sums over the vocabulary in float32. Only the
    weighted sum is differentiable, and once.

    Args:
        label_T: within the head's own rows.
        heads: of the rows in order; their rows add up to T.
        weight_K: of each head's sum.
        most_logits: numbers that may be held at once.
    """
    if torch.is_autocast_enabled(x_TD.device.type):
        dtype = torch.get_autocast_dtype(x_TD.device.type)
        x_TD, table_RD = x_TD.to(dtype), table_RD.to(dtype)
    total, sums = _Entropies.apply(x_TD, table_RD, label_T, tuple(heads), weight_K, most_logits)
    return total, sums


class _Entropies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        table_RD: Tensor,
        label_T: Tensor,
        heads: tuple[Head, ...],
        weight_K: Tensor,
        most_logits: int,
    ) -> tuple[Tensor, Tensor]:
        needs_x, needs_table = ctx.needs_input_grad[:2]
        x_gradient = torch.empty_like(x_TD, dtype=torch.float32) if needs_x else None
        table_gradient = _Gradient(table_RD, heads) if needs_table else None
        sums, first = [], 0
        for head, weight in zip(heads, weight_K.unbind(), strict=True):
            weight_VD = table_RD[head.start : head.stop]
            size = max(1, most_logits // len(weight_VD))
            entropy = weight_K.new_zeros((), dtype=torch.float32)
            for at in range(first, first + head.rows, size):
                rows = slice(at, min(at + size, first + head.rows))
                x_CD, label_C = x_TD[rows], label_T[rows]
                odds_CV = (x_CD @ weight_VD.T).float()
                right_C = odds_CV.gather(1, label_C[:, None])[:, 0]
                top_C = odds_CV.amax(1)
                odds_CV.sub_(top_C[:, None]).exp_()
                sum_C = odds_CV.sum(1)
                entropy = entropy + (sum_C.log() + top_C - right_C).sum()
                # the gradient is probabilities less what is right: odds / sum - 1 at the label. The
                # difference is in float32; the division is left to what is smaller than logits
                odds_CV.scatter_add_(1, label_C[:, None], -sum_C[:, None])
                wrong_CV, share_C1 = odds_CV.to(x_TD.dtype), (weight / sum_C)[:, None]
                if x_gradient is not None:
                    torch.mul(wrong_CV @ weight_VD, share_C1, out=x_gradient[rows])
                if table_gradient is not None:
                    table_gradient.add(head, wrong_CV.T, (x_CD * share_C1).to(x_TD.dtype))
            sums.append(entropy)
            first += head.rows
        summed_K = torch.stack(sums)
        ctx.gradients = x_gradient, table_gradient and table_gradient.finished()
        ctx.types = x_TD.dtype, table_RD.dtype
        ctx.mark_non_differentiable(summed_K)
        return (summed_K * weight_K).sum(), summed_K

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # used up: they are scaled in place, for that of the table is large
        found = [
            None if each is None else each.mul_(gradients[0]).to(dtype)
            for each, dtype in zip(ctx.gradients, ctx.types, strict=True)
        ]
        del ctx.gradients
        return (*found, None, None, None, None)


class _Gradient:
    """The gradient of a table in float32, of which no part is written twice without need."""

    def __init__(self, table_RD: Tensor, heads: Sequence[Head]) -> None:
        self._values = torch.empty_like(table_RD, dtype=torch.float32)
        self._written: set[tuple[int, int]] = set()
        places = sorted({(each.start, each.stop) for each in heads})
        if any(before[1] > after[0] for before, after in pairwise(places)):  # some share rows
            self._values.zero_()
            self._written.update(places)

    def add(self, head: Head, left_VC: Tensor, right_CD: Tensor) -> None:
        """Add a product to the rows of a head."""
        place, rows = (head.start, head.stop), self._values[head.start : head.stop]
        is_plain = left_VC.dtype == torch.float32
        if place in self._written:
            rows.addmm_(left_VC, right_CD) if is_plain else rows.add_(left_VC @ right_CD)
        elif is_plain:
            torch.mm(left_VC, right_CD, out=rows)
        else:
            rows.copy_(left_VC @ right_CD)
        self._written.add(place)

    def finished(self) -> Tensor:
        """All of it: zero where nothing was added."""
        end = 0
        for start, stop in (*sorted(self._written), (len(self._values), 0)):
            self._values[end:start] = 0
            end = max(end, stop)
        return self._values
