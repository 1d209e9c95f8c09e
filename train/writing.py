"""Sequences, word by word: from nothing, or into the gaps of what is known."""

from collections.abc import Collection

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional

from fourmill.manifests.errors import ConfigError
from fourmill.tokenize.vocabulary import EOS, FIRST_NUMBER, FIRST_SENTINEL, sentinel
from fourmill.train.conditions import Conditions, select_inputs, side_by_side
from fourmill.train.counters import Keys, uniforms
from fourmill.train.decoding import Writer
from fourmill.train.guidance import score, sides_of
from fourmill.train.model import FourM
from fourmill.train.sampling import draw, refuse_not_finite
from fourmill.train.schedules import GenerationStep

_OPENING = sentinel(1)  # of the one span that an empty sequence is
_WASTE = 0.75  # of rows that are still written: where no more are left, the others are dropped
_LOOK_EVERY = 8  # words, on a GPU, whether rows have ended or nothing can be drawn


def has_gaps(tokens: Int64[Tensor, "batch length"]) -> Bool[Tensor, " batch"]:
    """Whether a sentinel leaves something open, or nothing is known at all."""
    return _is_sentinel(tokens).any(1) | (tokens <= 0).all(1)


def write_sequence(
    model: FourM,
    conditions: Conditions,
    step: GenerationStep,
    keys: Keys,
    made: Collection[str],
    compiled: bool = False,
) -> Int64[Tensor, "batch length"]:
    """A sequence up to its end, and then zeros.

    Of what is known of it, every sentinel is replaced by words, and the rest stays as it is.

    Args:
        made: what the chain generated before.
    """
    length = model.domains.modality(step.target).max_tokens
    nothing = torch.zeros(len(keys), 0, dtype=torch.int64, device=keys.device)
    known = conditions.tokens.get(step.target, nothing).clamp(min=0)
    if known.shape[1] > length and bool(known[:, length:].any()):
        raise ConfigError(f"{step.target}: found more than the {length} tokens that it can have")
    known = functional.pad(known, (0, length - known.shape[1]))
    rows = has_gaps(known).nonzero()[:, 0]
    if not len(rows):
        return known
    words = _write(model, conditions.rows(rows), step, known[rows], keys[rows], made, compiled)
    if bool(known[rows].any()):
        filled = [
            _fill_gaps(*each, length)
            for each in zip(known[rows].tolist(), words.tolist(), strict=True)
        ]
        words = torch.tensor(filled, dtype=torch.int64, device=keys.device)
    return known.index_copy(0, rows, words)


def _write(
    model: FourM,
    conditions: Conditions,
    step: GenerationStep,
    known: Int64[Tensor, "batch length"],
    keys: Keys,
    made: Collection[str],
    compiled: bool,
) -> Int64[Tensor, "batch length"]:
    """Words up to the end, and then zeros; each gap's after its sentinel, except the first."""
    batch, length = known.shape
    words = torch.zeros_like(known)
    is_gap = _is_sentinel(known)
    no_gap = ~is_gap.any(1)
    first = known.gather(1, is_gap.int().argmax(1, keepdim=True))[:, 0]
    token = first.masked_fill(no_gap, _OPENING)
    closing = (known * is_gap).amax(1).masked_fill(no_gap, _OPENING) + 1
    room = length - ((known > 0) & ~is_gap).sum(1)
    noise = uniforms(keys, f"{step.target} token", length)

    sides = sides_of(step, conditions, made)
    weights = [each.weight(step, step.steps) for each in sides]
    seen = side_by_side([select_inputs(model.domains, each.conditions) for each in sides])
    writer = Writer(model, step.target, *model.encode(seen), length, compiled)
    active = torch.arange(batch, device=known.device)
    ended = torch.zeros_like(active, dtype=torch.bool)
    is_drawn = torch.ones((), dtype=torch.bool, device=known.device)
    for place in range(length):
        outputs = writer.write(token.repeat(len(sides))).chunk(len(sides))
        logits = score(model, step, weights, outputs)[:, None]
        drawn, sureness = draw(logits, step, step.temperature, noise[active, place, None])
        token, is_drawn = drawn[:, 0], is_drawn & sureness.isfinite().all()
        ended = ended | (token == closing[active])
        words[active, place] = token.masked_fill(ended, 0)
        ended = ended | (token == EOS) | (place + 1 >= room[active])
        is_last = place + 1 == length
        if known.is_cuda and place % _LOOK_EVERY and not is_last:  # looking waits for the device
            continue
        refuse_not_finite(is_drawn, step.target)
        left = (~ended).nonzero()[:, 0]
        if not len(left):
            break
        if len(left) <= _WASTE * len(active) and not compiled:
            of_sides = [left + side * len(active) for side in range(len(sides))]
            writer.keep_rows(torch.cat(of_sides))
            active, token, ended = active[left], token[left], ended[left]
    return words


def _fill_gaps(known: list[int], words: list[int], length: int) -> list[int]:
    """What is known with the words in its gaps, filled up with zeros."""
    kept = [token for token in known if token]
    gaps = [token for token in kept if _names_gap(token)]
    if not gaps:
        return words
    runs: dict[int, list[int]] = {each: [] for each in gaps}
    gap = gaps[0]
    for token in words:
        if token in runs:
            gap = token
        elif token and not _names_gap(token) and (token != EOS or gap == kept[-1]):
            runs[gap].append(token)
    filled = [each for token in kept for each in runs.get(token, [token])]
    return filled + [0] * (length - len(filled))


def _is_sentinel(tokens: Int64[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    return (tokens >= FIRST_SENTINEL) & (tokens < FIRST_NUMBER)


def _names_gap(token: int) -> bool:
    return FIRST_SENTINEL <= token < FIRST_NUMBER
