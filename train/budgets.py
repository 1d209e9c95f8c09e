"""How many tokens each modality gives as input and as target: budgets from Dirichlet shares.

Shapes: B batch, K modalities.
"""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fourmill.train.counters import Keys, log_dirichlet

Budgets = Int64[Tensor, "batch modalities"]


def faithful_budgets(
    keys: Keys,
    stream: str,
    alpha: Float64[Tensor, "batch modalities"],
    total: Int64[Tensor, " batch"],
    room: Budgets,
) -> Budgets:
    """The published law: floors of the shares, one further draw for each token that is left.

    What a modality has no room for is lost.
    """
    count = alpha.shape[1]
    shares = log_dirichlet(keys, stream, alpha, draws=count + 1).exp()
    budgets = (shares[:, 0] * total[:, None]).long()
    left = total - budgets.sum(1)
    winners = shares[:, 1:].argmax(-1)  # of each further draw; the floors leave fewer than `count`
    is_used = torch.arange(count, device=left.device) < left[:, None]
    return torch.minimum(budgets.scatter_add(1, winners, is_used.long()), room)


def efficient_shares(
    keys: Keys,
    stream: str,
    alpha: Float64[Tensor, "batch modalities"],
    total: Int64[Tensor, " batch"],
    is_dear: Bool[Tensor, " modalities"],
) -> Float64[Tensor, "batch modalities"]:
    """Shares as published, by which `fill` gives what a modality has no room for to the others.

    Args:
        is_dear: modalities that are left out where their share is less than one token: pixels,
            which are not worth decoding a picture for.
    """
    shares = log_dirichlet(keys, stream, alpha)[:, 0].exp()
    is_left_out = (alpha <= 0) | (is_dear & (shares * total[:, None] < 1))
    return torch.where(is_left_out, 0.0, shares.clamp(min=1e-6))


def fill(
    budgets: Budgets,
    shares: Float64[Tensor, "batch modalities"],
    left: Int64[Tensor, " batch"],
    room: Budgets,
) -> Budgets:
    """Add `left` tokens to budgets in proportion to the shares, as far as there is room.

    Modalities with a share of 0 get none.
    """
    for _ in range(budgets.shape[1]):  # each round fills one up, or leaves less than one for each
        space = torch.where(shares > 0, room - budgets, 0)
        weights = shares * (space > 0)
        even = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        added = torch.minimum((even * left[:, None]).long(), space)
        budgets = budgets + added
        left = left - added.sum(1)
    space = torch.where(shares > 0, room - budgets, 0)
    order = (shares * (space > 0)).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(1)
    return budgets + ((rank < left[:, None]) & (space > 0)).long()
