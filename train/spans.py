"""Span masking of text-like sequences with sentinels, after T5 (Raffel et al. 2020).

Each token, or chunk of tokens, is kept with some probability. Maximal runs of what is not kept
are the targets; a sentinel stands for each in the input and opens it in the target, which a last
sentinel closes:

    a man riding a bicycle [EOS]   keep: a . . a . [EOS]
    input   a [S_1] a [S_2] [EOS]
    target  [S_1] man riding [S_2] bicycle [S_3]
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from fourmill.tokenize.vocabulary import EOS, NUM_BINS, number, sentinel
from fourmill.train.counters import Keys, uniforms

_SENTINEL_0 = sentinel(0)  # [S_1] is the first that is used
_FIRST_CHUNK = number(1, 0)  # v1=0 to v1=999 open a chunk
_DECAY = 0.9  # of the probability to keep, each time that the input is too long
_ATTEMPTS = 64  # then nothing is kept
_BLOCK = 8  # attempts that are tried together: the mean is about three


class Keep(IntEnum):
    """Law of the probability with which tokens are kept."""

    RANDOM = 0  # evenly in 0..1
    ALL = 1
    BINARY = 2  # 0 or 1


@dataclass(frozen=True)
class Spans:
    """A masked batch; only the first `input_length` and `target_length` columns mean anything."""

    input_token: Int64[Tensor, "batch inputs"]
    input_length: Int64[Tensor, " batch"]
    target_token: Int64[Tensor, "batch targets"]
    target_length: Int64[Tensor, " batch"]


def mask_spans(
    keys: Keys,
    stream: str,
    token: Int64[Tensor, "batch length"],
    input_budget: Int64[Tensor, " batch"],
    target_budget: Int64[Tensor, " batch"],
    keep: Int64[Tensor, " batch"],
    in_chunks: bool = False,
) -> Spans:
    """Inputs of at most `input_budget` tokens, and targets of at most `target_budget`.

    While an input is too long, its mask is drawn again with a lower probability. Of a target that
    is too long, the part from a random sentinel on is taken, or, where that would leave budget,
    from the first sentinel from which the rest fits.

    Args:
        token: ids, 0 after the end.
        keep: `Keep` of each sample.
        in_chunks: mask the chunks of `metadata` as wholes.
    """
    valid = token > 0
    is_kept = _draw_kept(keys, stream, token, valid, input_budget, keep, in_chunks)
    masked = valid & ~is_kept
    opens = _run_starts(masked)
    run = opens.cumsum(1)
    in_input = (valid & is_kept) | opens
    input_length = torch.where(input_budget > 0, in_input.sum(1), 0)
    input_token = _gather_front(in_input, torch.where(opens, _SENTINEL_0 + run, token))

    width = 2 * token.shape[1] + 1
    target = token.new_zeros(len(token), width + 1)
    place = masked.cumsum(1) + run - 1
    target.scatter_(1, torch.where(masked, place, width), token)
    target.scatter_(1, torch.where(opens, place - 1, width), _SENTINEL_0 + run)
    num_runs = run[:, -1]
    last = masked.sum(1) + num_runs
    target.scatter_(1, last[:, None], (_SENTINEL_0 + num_runs + 1)[:, None])
    length = torch.where(valid.any(1), last + 1, 0)
    start = _start(keys, stream, target, opens, place - 1, length, target_budget)
    column = (start[:, None] + torch.arange(width, device=token.device)).clamp(max=width)
    taken = torch.minimum(length - start, target_budget)
    return Spans(input_token, input_length, target.gather(1, column), taken)


def _draw_kept(
    keys: Keys,
    stream: str,
    token: Tensor,
    valid: Tensor,
    budget: Tensor,
    keep: Tensor,
    in_chunks: bool,
) -> Bool[Tensor, "batch length"]:
    length = token.shape[1]
    chance = uniforms(keys, f"{stream} keep", 1)[:, 0]
    chance = torch.where(keep == Keep.BINARY, chance.round(), chance)
    chance = torch.where(keep == Keep.ALL, 1.0, chance)
    is_kept = torch.zeros_like(valid)
    for first in range(0, _ATTEMPTS, _BLOCK):
        rows = (budget > 0).nonzero().squeeze(1)
        if not len(rows):
            break
        noise = uniforms(keys[rows], f"{stream} spans", _BLOCK * length, first * length)
        noise = noise.view(len(rows), _BLOCK, length)
        if in_chunks:
            chunk = _chunks(token[rows])
            noise = noise.gather(2, chunk[:, None].expand(-1, _BLOCK, -1))
        decay = _DECAY ** torch.arange(first, first + _BLOCK, device=token.device)
        kept = noise < (chance[rows, None] * decay)[..., None]
        here = valid[rows][:, None]
        masked = here & ~kept
        lengths = (here & kept).sum(2) + _run_starts(masked).sum(2)
        fits = lengths <= budget[rows, None]
        choice = fits.to(torch.uint8).argmax(1)
        done = fits.any(1)
        chosen = kept[torch.arange(len(rows), device=rows.device), choice]
        is_kept[rows[done]] = chosen[done]
        budget = budget.index_fill(0, rows[done], 0)
    return is_kept


def _start(
    keys: Keys,
    stream: str,
    target: Tensor,
    opens: Tensor,
    sentinel_place: Tensor,
    length: Tensor,
    budget: Tensor,
) -> Int64[Tensor, " batch"]:
    """Where in the target sequence the part that is taken begins."""
    beyond = target.shape[1]
    places = torch.where(opens, sentinel_place, beyond).sort(1).values
    count = opens.sum(1)
    chosen = (uniforms(keys, f"{stream} start", 1)[:, 0] * count).long()
    drawn = places.gather(1, chosen[:, None])[:, 0]
    fits = (length[:, None] - places <= budget[:, None]) & (places < beyond)
    last = (length - 1).clamp(min=0)  # the closing sentinel, from which the rest always fits
    earliest = torch.where(fits, places, last[:, None]).amin(1)
    start = torch.where(length - drawn < budget, earliest, drawn)
    return torch.where(length > budget, start, 0)


def _run_starts(masked: Tensor) -> Tensor:
    before = torch.nn.functional.pad(masked, (1, -1))
    return masked & ~before


def _chunks(token: Int64[Tensor, "batch length"]) -> Int64[Tensor, "batch length"]:
    """Number of the chunk that each token is in."""
    is_type = (token >= _FIRST_CHUNK) & (token < _FIRST_CHUNK + NUM_BINS)
    opens = is_type | (token == EOS)
    return (opens.cumsum(1) - 1).clamp(min=0)


def _gather_front(chosen: Tensor, value: Tensor) -> Tensor:
    place = torch.where(chosen, chosen.cumsum(1) - 1, chosen.shape[1])
    front = value.new_zeros(len(value), chosen.shape[1] + 1).scatter_(1, place, value)
    return front[:, :-1]
