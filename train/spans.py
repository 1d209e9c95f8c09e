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
from jaxtyping import Bool, Float64, Int32, Int64
from torch import Tensor
from torch.nn import functional

from fourmill.tokenize.vocabulary import EOS, FIRST_NUMBER, NUM_BINS, number, sentinel
from fourmill.train.counters import short_hashes, uniforms

_SENTINEL_0 = sentinel(0)  # [S_1] is the first that is used
_FIRST_CHUNK = number(1, 0)  # v1=0 to v1=999 open a chunk
_DECAY = 0.9  # of the probability to keep, each time that the input is too long
_ATTEMPTS = 64  # then nothing is kept
_LEVELS = 2**16  # of probabilities: so each hash of 32 bits serves two attempts
_STRIDE = 4096  # hashes for each pair of attempts; no sequence has as many tokens

FIRST_ID = FIRST_NUMBER
"""The first id that no sentinel has: numbers from here on can stand for vectors."""


class Keep(IntEnum):
    """Law of the probability with which tokens are kept."""

    RANDOM = 0  # evenly in 0..1
    ALL = 1
    BINARY = 2  # 0 or 1


@dataclass(frozen=True)
class Spans:
    """Masked sequences.

    Attributes:
        input_token: of which the first `input_length` mean anything.
        target_token: of which `target_length` from `target_start` on are taken.
    """

    input_token: Int32[Tensor, "*rows inputs"]
    input_length: Int64[Tensor, "*rows"]
    target_token: Int32[Tensor, "*rows targets"]
    target_start: Int64[Tensor, "*rows"]
    target_length: Int64[Tensor, "*rows"]


def mask_spans(
    keys: Int64[Tensor, " rows"],
    token: Int32[Tensor, "rows length"],
    input_budget: Int64[Tensor, " rows"],
    target_budget: Int64[Tensor, " rows"],
    keep: Int64[Tensor, " rows"],
    in_chunks: Bool[Tensor, " rows"],
) -> Spans:
    """Inputs of at most `input_budget` tokens, and targets of at most `target_budget`.

    While an input is too long, its mask is drawn again with a lower probability. Of a target that
    is too long, the part from a random sentinel on is taken, or, where that would leave budget,
    from the first sentinel from which the rest fits.

    Args:
        keys: of the sequences.
        token: ids, 0 after the end; what is masked does not depend on how many zeros there are.
        keep: `Keep` of each.
        in_chunks: mask the chunks of `metadata` as wholes.
    """
    valid = token > 0
    place = torch.arange(token.shape[1], device=token.device)
    chunk = torch.where(in_chunks[:, None], _chunks(token), place).int()
    is_kept = _draw_kept(keys, valid, chunk, input_budget, _chances(keys, keep))
    masked = valid & ~is_kept
    opens = masked & ~functional.pad(masked, (1, -1))
    run = opens.cumsum(1)
    mark = (_SENTINEL_0 + run).int()
    in_input = is_kept | opens
    input_length = torch.where(input_budget > 0, in_input.sum(1), 0)
    input_token = _gather_front(in_input, torch.where(opens, mark, token))

    width = token.shape[1] + 2  # each run but the first has a token before it that is kept
    target = token.new_zeros(len(token), width + 1)
    column = masked.cumsum(1) + run - 1
    target.scatter_(1, torch.where(masked, column, width), token)
    target.scatter_(1, torch.where(opens, column - 1, width), mark)
    last = masked.sum(1) + run[:, -1]
    target.scatter_(1, last[:, None], mark[:, -1:] + 1)
    length = torch.where(valid.any(1), last + 1, 0)
    start = _start(keys, opens, run, column - 1, length, target_budget)
    taken = torch.minimum(length - start, target_budget)
    return Spans(input_token, input_length, target[:, :-1], start, taken)


def _chances(keys: Tensor, keep: Tensor) -> Float64[Tensor, " rows"]:
    chance = uniforms(keys, "keep", 1)[:, 0]
    chance = torch.where(keep == Keep.BINARY.value, chance.round(), chance)
    return torch.where(keep == Keep.ALL.value, 1.0, chance)


def _draw_kept(
    keys: Tensor, valid: Tensor, chunk: Tensor, budget: Tensor, chance: Tensor
) -> Bool[Tensor, "rows length"]:
    """What the first attempt keeps that fits; nothing where there is no budget.

    On a CPU the rows that are done are left out of further attempts. Elsewhere nobody looks at
    how many they are: all rows make all attempts.
    """
    is_kept = torch.zeros_like(valid)
    if valid.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = (budget > 0).nonzero()[:, 0]
        first, count = 0, 4
        while len(rows) and first < _ATTEMPTS:
            parts = [each[rows] for each in (keys, valid, chunk, budget, chance)]
            is_kept[rows], fits = _attempt(first, count, *parts)
            rows = rows[~fits]
            first, count = first + count, first + count  # 4, 4, 8, 16, 32: ever fewer rows
        return is_kept
    is_open = budget > 0
    for first in range(0, _ATTEMPTS, 16):
        kept, fits = _attempt(first, 16, keys, valid, chunk, budget, chance)
        is_kept = is_kept | (kept & is_open[:, None])
        is_open = is_open & ~fits
    return is_kept


def _attempt(
    first: int, count: int,
    keys: Tensor, valid: Tensor, chunk: Tensor, budget: Tensor, chance: Tensor,
) -> tuple[Bool[Tensor, "rows length"], Bool[Tensor, " rows"]]:  # fmt: skip
    """What the first of attempts `first` to `first + count` that fits keeps, and if one does."""
    rows, length = valid.shape
    attempt = torch.arange(first, first + count, device=keys.device)
    pair = attempt[::2, None].int() // 2 * _STRIDE
    noise = short_hashes(keys[:, None, None], pair + chunk[:, None])
    noise = torch.stack([noise & (_LEVELS - 1), (noise >> 16) & (_LEVELS - 1)], 2)
    level = (chance[:, None] * _DECAY**attempt * _LEVELS).ceil().int()
    masked = (noise.view(rows, count, length) >= level[..., None]) & valid[:, None]
    followed = masked[..., 1:] & masked[..., :-1]  # a run is as long as one token in the input
    lengths = valid.sum(1)[:, None] - followed.sum(2, dtype=torch.int32)
    fits = lengths <= budget[:, None]
    choice = fits.to(torch.uint8).argmax(1)
    chosen = masked.gather(1, choice[:, None, None].expand(-1, -1, length))[:, 0]
    is_any = fits.any(1)
    return valid & ~chosen & is_any[:, None], is_any


def _start(
    keys: Tensor, opens: Tensor, run: Tensor, sentinel_place: Tensor, length: Tensor, budget: Tensor
) -> Int64[Tensor, " rows"]:
    """Where in the target sequence the part that is taken begins."""
    chosen = (uniforms(keys, "start", 1)[:, 0] * run[:, -1]).long() + 1
    drawn = torch.where(opens & (run == chosen[:, None]), sentinel_place, 0).sum(1)
    last = (length - 1).clamp(min=0)  # the closing sentinel, from which the rest always fits
    fits = opens & (length[:, None] - sentinel_place <= budget[:, None])
    earliest = torch.where(fits, sentinel_place, last[:, None]).amin(1)
    start = torch.where(length - drawn < budget, earliest, drawn)
    return torch.where(length > budget, start, 0)


def _chunks(token: Int32[Tensor, "rows length"]) -> Int64[Tensor, "rows length"]:
    """Number of the chunk that each token is in."""
    is_type = (token >= _FIRST_CHUNK) & (token < _FIRST_CHUNK + NUM_BINS)
    opens = is_type | (token == EOS)
    return (opens.cumsum(1) - 1).clamp(min=0)


def _gather_front(chosen: Tensor, value: Tensor) -> Tensor:
    place = torch.where(chosen, chosen.cumsum(1) - 1, chosen.shape[1])
    front = value.new_zeros(len(value), chosen.shape[1] + 1).scatter_(1, place, value)
    return front[:, :-1]
