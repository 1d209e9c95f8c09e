"""Editing: one label is changed, and what follows from it is generated again with all else held.

Before and after are generated together, from the same seed and by the same draws, so that whatever
differs comes from the edit: the probing experiments of 4M (Mizrahi et al. 2023).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Masking
from fourmill.manifests.render import sheet
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.values import standardised
from fourmill.tokenize.vq import VQTokenizer
from fourmill.train.edits import Box, Edit, ShiftDepth, cells_of, touched
from fourmill.train.generate import Conditions
from fourmill.train.given import read_samples
from fourmill.train.panels import picture
from fourmill.train.sampler import Sampler
from fourmill.train.schedules import GenerationStep, default_step


@dataclass(frozen=True)
class Edited:
    """A sample before and after an edit.

    Attributes:
        labels: by the model's modality, before and after: first of what was edited, then of what
            was generated.
        tokens: the same as tokens.
        edited: the names of what was edited.
        held: labels of what was given and not edited, by name.
        boxes: where the edits were.
    """

    labels: dict[str, tuple[Label, Label]]
    tokens: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    edited: tuple[str, ...]
    held: dict[str, Label]
    boxes: list[Box]


def edit(
    sampler: Sampler,
    given: Mapping[str, Label],
    edits: Sequence[Edit],
    plan: Sequence[GenerationStep],
    seed: int = 0,
    number: int = 0,
) -> Edited:
    """A plan's targets from what is given, before and after some edits of it.

    Edits are of what the model sees: a label as its tokens say it. Depth that is edited keeps its
    tokens wherever the edit does not touch them.

    Args:
        given: labels of one sample, as `Sampler.conditions` takes them; all that is not edited is
            held.
        number: of the sample, which draws are keyed by.

    Raises:
        ConfigError: an edit of what is not given, or is not there; a target that is edited.
        UnknownNameError: a modality that the model does not know.
    """
    if not edits:
        raise ConfigError("no edit: say what is to be changed")
    conditions = sampler.conditions(
        1, {name: [label] for name, label in given.items()}, [number]
    )  # fmt: skip
    before, after = dict(conditions.tokens), dict(conditions.tokens)
    labels: dict[str, tuple[Label, Label]] = {}
    boxes: list[Box] = []
    for each in edits:
        name = sampler.resolve(each.modality)
        tokenizer = _tokenizer(sampler, name, before)
        is_first = name not in labels
        if is_first and not isinstance(tokenizer, VQTokenizer):
            # through the label once, so that what is not edited has the same words after it
            label = sampler.decode(name, before[name])[0]
            before[name] = after[name] = _encoded(tokenizer, label, number, before[name])
        old = sampler.decode(name, after[name])[0]
        new = each.apply(old)
        if isinstance(each, ShiftDepth):
            after[name] = _shifted(tokenizer, after[name], new, each.box)
            boxes.append(each.box)
        else:
            after[name] = _encoded(tokenizer, new, number, after[name])
            boxes += touched(old, new)
        first = labels[name][0] if not is_first else sampler.decode(name, before[name])[0]
        labels[name] = (first, sampler.decode(name, after[name])[0])
    for step in plan:
        if step.target in labels:
            raise ConfigError(f"{step.target} is edited: it cannot be generated too")
    both = _both(conditions, before, after)
    tokens = {name: _pair(both.tokens[name]) for name in labels}
    for name, made in sampler.generate(both, plan, seed).items():
        tokens[name] = _pair(made)
        old, new = sampler.decode(name, made)
        labels[name] = (old, new)
    edited = tuple(name for name in labels if name not in {step.target for step in plan})
    held = {n: label for n, label in given.items() if sampler.resolve(n) not in edited}
    return Edited(labels, tokens, edited, held, boxes)


def probe(
    sampler: Sampler,
    dataset: Dataset,
    change: Edit,
    held: Sequence[str],
    targets: Sequence[str],
    samples: int = 3,
    split: str = "val",
    guidance: float = 3.0,
    seed: int = 0,
) -> Iterator[tuple[str, Edited]]:
    """The first samples of a split in which an edit is possible, by their keys, edited.

    Args:
        held: what else is given of them.
        targets: what is generated, in this order.
        guidance: how closely what is given is followed; small models hardly follow without.

    Raises:
        UnknownNameError: a modality that the model does not know.
        ConfigError: the dataset lacks one of them.
    """
    names = [sampler.resolve(name) for name in (change.modality, *held)]
    plan = []
    for name in targets:
        step = default_step(sampler.domains.modality(sampler.resolve(name, target=True)))
        steps = step.steps if step.scheme == "autoregressive" else 8
        plan.append(replace(step, steps=steps, temperature=1.0, guidance=guidance))
    left = samples
    for batch in read_samples(sampler, dataset, names, split, batch_size=1):
        if not left:
            return
        given = {name: labels[0] for name, labels in batch.labels.items() if labels[0] is not None}
        if len(given) == len(batch.labels) and _is_possible(sampler, given, change):
            left -= 1
            yield batch.keys[0], edit(sampler, given, [change], plan, seed, batch.rows[0])


def changes(sampler: Sampler, edited: Edited) -> dict[str, dict[str, float]]:
    """By target, the share of its tokens that differ; of grids, of those where the edit was and of
    the others too, if it was anywhere."""
    found = {}
    for name, (before, after) in edited.tokens.items():
        if name in edited.edited:
            continue
        definition = sampler.domains.modality(name)
        differs = before != after
        shares = {"changed": float(differs.mean())}
        is_map = definition.masking is Masking.IMAGE and not definition.learned_positions
        if is_map and edited.boxes:
            inside = cells_of(edited.boxes, *definition.grid).ravel()
            parts = {"changed_inside": differs[inside], "changed_outside": differs[~inside]}
            shares |= {each: float(part.mean()) for each, part in parts.items() if part.size}
        found[name] = shares
    return found


def draw_edit(sampler: Sampler, edited: Edited, title: str = "", size: int = 160) -> Image.Image:
    """Before, after, and how far the pictures differ: a column each of what was edited, of what
    followed from it, and of what was held."""
    rows: list[list[NDArray[np.uint8]]] = [[], [], []]
    columns = []
    for name, (before, after) in edited.labels.items():
        mark = "edited" if name in edited.edited else "follows"
        columns.append(f"{sampler.stored(name).name}\n{mark}")
        one = picture(sampler, name, before, size)
        other = picture(sampler, name, after, size, like=before)
        apart = np.abs(one.astype(np.int16) - other).astype(np.uint8)
        for row, each in zip(rows, (one, other, apart), strict=True):
            row.append(each)
    for name, label in edited.held.items():
        columns.append(f"{sampler.stored(sampler.resolve(name)).folder}\nheld")
        same = picture(sampler, name, label, size)
        for row, each in zip(rows, (same, same, np.zeros_like(same)), strict=True):
            row.append(each)
    return sheet(rows, columns, ["before", "after", "difference"], title)


def _is_possible(sampler: Sampler, given: Mapping[str, Label], change: Edit) -> bool:
    """Whether a sample has the box, the colour or the word that is to be edited."""
    name = sampler.resolve(change.modality)
    tokens = sampler.conditions(1, {name: [given[name]]}).tokens[name]
    try:
        change.apply(sampler.decode(name, tokens)[0])
    except ConfigError:
        return False
    return True


def _tokenizer(sampler: Sampler, name: str, known: Mapping[str, Tensor]) -> Tokenizer:
    if name not in known or bool((known[name] < 0).any()):
        raise ConfigError(f"{name}: is to be edited, and the sample has none: give one")
    if name not in sampler.tokenizers:
        raise ConfigError(f"{name}: no tokenizer of it is at hand (--tokenizers): cannot be edited")
    return sampler.tokenizers[name]


def _encoded(tokenizer: Tokenizer, label: Label, number: int, like: Tensor) -> Tensor:
    """Tokens of a label of all that the model sees."""
    whole = np.array([[0, 0, 1000, 1000, 0]], np.int64)
    ids: NDArray[Any] = tokenizer.tokenize([label], [whole], [(1000, 1000)], [str(number)])
    return torch.from_numpy(ids.reshape(1, -1).astype(np.int64)).to(like.device)


def _shifted(tokenizer: Tokenizer, tokens: Tensor, depth: Label, box: Box) -> Tensor:
    """Depth's tokens with those anew that a box touches."""
    if not isinstance(tokenizer, VQTokenizer) or tokenizer.definition.kind is not Kind.DEPTH:
        raise ConfigError(f"{tokenizer.spec.modality}: is no depth: cannot be shifted")
    assert isinstance(depth, np.ndarray)
    # not standardised anew: the shift would be taken out of its own mean again
    values = torch.from_numpy(standardised(depth))[None, None]
    new = tokenizer.encode(values).flatten(1)
    grid = tokenizer.network.shape.grid
    cells = torch.from_numpy(cells_of([box], grid, grid).ravel())
    return torch.where(cells[None], new, tokens.cpu()).to(tokens.device)


def _both(
    conditions: Conditions, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Conditions:
    """Before and after as two rows of one sample, whose draws are the same."""
    return replace(
        conditions,
        sample=conditions.sample.repeat(2),
        tokens={name: torch.cat([each, after[name]]) for name, each in before.items()},
        pixels={
            name: each.repeat(2, *[1] * (each.ndim - 1)) for name, each in conditions.pixels.items()
        },
    )


def _pair(
    tokens: Int64[Tensor, "2 length"],
) -> tuple[Int64[np.ndarray, " length"], Int64[np.ndarray, " length"]]:
    before, after = tokens.cpu().numpy()
    return before, after
