"""Weights that a run starts from: a model of partly other modalities, published or of a run."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fourmill.manifests.errors import ConfigError
from fourmill.train.exchange import (
    Names,
    as_named_by,
    embedding_parts,
    fixed_tensors,
    refuse_other_constants,
    refuse_untied,
    to_reference,
)
from fourmill.train.model import FourM
from fourmill.train.published import Published, open_published

_BLOCKS = "blocks"
_SIDES = {"encoder": "as input", "decoder": "as target"}


@dataclass(frozen=True)
class Start:
    """What a model took over.

    Attributes:
        copied: `tok_rgb@224 as input`, …
        fresh: what keeps its initial weights, with the reason.
        unused: what the source has and the model has not.
    """

    source: Path
    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        names = dict.fromkeys(each.partition(" as ")[0] for each in self.copied)
        parts = [f"starts from {self.source}: blocks and {', '.join(names)} taken over"]
        if self.fresh:
            parts.append(f"new: {', '.join(self.fresh)}")
        if self.unused:
            parts.append(f"left out: {', '.join(self.unused)}")
        return "; ".join(parts)


def start_from(where: str | Path, model: FourM) -> Start:
    """Give a model the weights of another: all blocks, and the modalities that both have.

    What is new in the model keeps the weights that it has. A modality is the same if it has the
    same name (a dataset's `tok_caption` is the reference's `caption`) and as large a vocabulary;
    whether its ids mean the same is for the user to see to.

    Args:
        where: as in `load_published`.

    Raises:
        ConfigError: it cannot be read, has other blocks, or none of the modalities, or tensors
            differ there that are one in the model; nothing has been changed then.
        MissingPackageError: an id that is not on this machine and cannot be fetched.
    """
    source = open_published(where)
    state = as_named_by(model.domains, source.tensors)
    views, fixed = to_reference(model), fixed_tensors(model)
    _refuse_other_blocks(source, model, state, views.keys() | fixed.keys())
    groups: dict[str, Names] = {}
    for key, view in views.items():
        groups.setdefault(_group(key), {})[key] = view
    reasons = {name: _why_not(group, state) for name, group in groups.items()}
    if why := reasons.pop(_BLOCKS):
        raise ConfigError(f"{source.file}: not the blocks of this model: {why}")
    copied = sorted(name for name, why in reasons.items() if why is None)
    if not copied:
        raise ConfigError(
            f"{source.file}: has none of the model's modalities, but "
            f"{', '.join(source.domains.names)}"
        )
    taken = {key: each for name in (_BLOCKS, *copied) for key, each in groups[name].items()}
    refuse_untied(taken, state, str(source.file))
    refuse_other_constants(fixed, state, str(source.file))
    with torch.no_grad():
        for key, view in taken.items():
            view.copy_(state[key])
    fresh = sorted(f"{name} ({why})" for name, why in reasons.items() if why)
    unused = sorted({_group(key) for key in state} - groups.keys())
    return Start(source.file, tuple(copied), tuple(fresh), tuple(unused))


def _refuse_other_blocks(
    source: Published, model: FourM, state: Names, known: Collection[str]
) -> None:
    """Refuse blocks that the shapes of the model's own tensors do not tell from its own."""
    surplus = sorted(key for key in state if _group(key) == _BLOCKS and key not in known)
    if surplus:
        raise ConfigError(f"{source.file}: not the blocks of this model: {surplus[0]} is not here")
    for what in ("heads", "separate_targets", "causal_targets"):
        there, here = getattr(source.shape, what), getattr(model.shape, what)
        if there != here:
            raise ConfigError(
                f"{source.file}: not the blocks of this model: {what} is {there} there, {here} here"
            )


def _group(key: str) -> str:
    """What is taken over together: a modality's tensors of one side, or all that is of none."""
    parts = embedding_parts(key)
    return f"{parts[1]} {_SIDES[parts[0]]}" if parts else _BLOCKS


def _why_not(group: Names, state: Names) -> str | None:
    """Why tensors cannot be taken from a state; `None` if they can."""
    missing = sorted(group.keys() - state.keys())
    if missing:
        return f"{missing[0]} is not there" if len(missing) < len(group) else "not there"
    for key, view in group.items():
        if view.shape != state[key].shape:
            return f"{key} is {_written(state[key].shape)} there, {_written(view.shape)} here"
    return None


def _written(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
