"""How many tokens each modality gives as input and as target: budgets from Dirichlet shares.

Shapes: B batch, K modalities.
"""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fourmill.train.counters import LEAST_ALPHA, Keys, log_dirichlet, uniforms

Budgets = Int64[Tensor, "batch modalities"]

_NODES = 4096  # of the integral, in each of its two parts
_TAIL = -20.0  # logarithm below which the distribution of a gamma variable is its first term


def faithful_budgets(
    keys: Keys,
    stream: str,
    alpha: Float64[Tensor, "batch modalities"],
    odds: Float64[Tensor, "batch modalities"],
    total: Int64[Tensor, " batch"],
    room: Budgets,
) -> Budgets:
    """The published law: floors of the shares, one further draw for each token that is left.

    What a modality has no room for is lost.

    Args:
        odds: `winning_odds` of alpha.
    """
    shares = log_dirichlet(keys, stream, alpha).exp()
    budgets = (shares * total[:, None]).long()
    left = total - budgets.sum(1)  # fewer than there are modalities
    draws = uniforms(keys, f"{stream} left", alpha.shape[1] - 1)
    winners = torch.searchsorted(odds.cumsum(1)[:, :-1].contiguous(), draws, right=True)
    is_used = torch.arange(draws.shape[1], device=left.device) < left[:, None]
    return torch.minimum(budgets.scatter_add(1, winners, is_used.long()), room)


def winning_odds(
    alpha: Float64[Tensor, "components modalities"],
) -> Float64[Tensor, "components modalities"]:
    """Probabilities that a Dirichlet draw gives a modality the largest share.

    The published law gives each token that is left to the winner of a draw of its own; this is who
    wins it. The largest share is that of the largest of independent gamma variables, so the odds
    are the integrals of `∏ F / F_k dF_k` over the logarithm of the variable.
    """
    return torch.stack([_odds(row.clamp(min=LEAST_ALPHA)) for row in alpha])


def _odds(alpha: Float64[Tensor, " modalities"]) -> Float64[Tensor, " modalities"]:
    sizes, which = torch.unique(alpha, return_inverse=True)
    low = _TAIL - 40.0 / float(alpha.sum())
    largest = float(alpha.max())
    high = torch.tensor(largest + 10 * largest**0.5 + 40.0).log().item()
    tail = torch.linspace(low, _TAIL, _NODES, dtype=torch.float64)
    node = torch.cat([tail[:-1], torch.linspace(_TAIL, high, _NODES, dtype=torch.float64)])
    first_term = sizes[:, None] * node - (sizes + 1).lgamma()[:, None]
    inside = torch.special.gammainc(sizes[:, None].expand(-1, len(node)), node.exp()).log()
    log_f = torch.where(node < _TAIL, first_term, inside).clamp(min=-1e4)[which]
    product = log_f.sum(0).exp()
    odds = (log_f.diff(dim=1) * (product[1:] + product[:-1]) / 2).sum(1)
    return odds / odds.sum()


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
    shares = log_dirichlet(keys, stream, alpha).exp()
    is_left_out = (alpha <= 0) | (is_dear & (shares * total[:, None] < 1))
    return torch.where(is_left_out, 0.0, shares.clamp(min=1e-6))


def fill(
    budgets: Budgets,
    shares: Float64[Tensor, "batch modalities"],
    left: Int64[Tensor, " batch"],
    room: Budgets,
) -> Budgets:
    """Add `left` tokens to budgets in proportion to the shares, as far as there is room.

    Modalities with a share of 0 get none. Those with the least room for their share are filled up
    first; the others share the rest, rounded down, and the largest of them get what that leaves.
    """
    space = torch.where(shares > 0, room - budgets, 0)
    shares = torch.where(space > 0, shares, 0.0)
    level = (space / shares).nan_to_num(0)  # tokens for each whole share at which one is full
    is_later = level[:, None] > level[..., None]  # [batch, one, other]
    until = torch.where(is_later, level[..., None] * shares[:, None], space[:, None]).sum(2)
    is_full = until <= left[:, None]
    rest = left - (space * is_full).sum(1)
    even = shares * (rest / (shares * ~is_full).sum(1)).nan_to_num(0, 0)[:, None]
    added = torch.where(is_full, space, torch.minimum(even.long(), space))
    over = left - added.sum(1)  # fewer than there are open ones
    open_shares = torch.where(is_full, 0.0, shares)
    number = torch.arange(shares.shape[1], device=shares.device)
    is_ahead = open_shares[:, None] > open_shares[..., None]
    is_ahead |= (open_shares[:, None] == open_shares[..., None]) & (number < number[:, None])
    wins = (is_ahead.sum(2) < over[:, None]) & (added < space)
    return budgets + added + wins.long()
