"""Checkpoints of any run: written aside and renamed, so that what is there is whole; tensors only.

out/checkpoints/step-00000200/      what the run puts in: weights, optimizer, state.json
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train import runs

_log = logging.getLogger(__name__)
_MOMENTS = ("exp_avg", "exp_avg_sq")
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        step: finished steps; order, crops, draws and learning rate follow from it.
        seconds: spent on them so far, over all restarts.
    """

    step: int
    seconds: float


def save(out: Path, state: State, keep: int, write: Callable[[Path], None]) -> Path:
    """Write a checkpoint, then remove all but the last `keep`.

    Args:
        write: puts everything but the state into a folder.
    """
    place = out / "checkpoints" / f"step-{state.step:08d}"
    aside = place.with_name(f".{place.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    (aside / "state.json").write_text(json.dumps(vars(state)), encoding="utf-8")
    for path in aside.iterdir():
        _sync(path)
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
    for old in runs.checkpoints(out)[keep:]:
        shutil.rmtree(old)
    return place


def load_last(out: Path, load: Callable[[Path, State], _Loaded]) -> State | None:
    """Load the last checkpoint that can be read; `None` where there is none at all.

    Raises:
        TrainingError: there are some, but none can be read.
    """
    found = runs.checkpoints(out)
    for place in found:
        try:
            state = State(**json.loads((place / "state.json").read_text(encoding="utf-8")))
            load(place, state)
            return state
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConfigError) as error:
            _log.warning("%s cannot be read (%s): going back to the one before", place, error)
    if found:
        raise TrainingError(
            f"{out}: none of its {len(found)} checkpoints can be read; begin anew with --fresh"
        )
    return None


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of AdamW by name."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state  # tables without rows never get a gradient
        for moment in _MOMENTS
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor], step: int
) -> None:
    """Set the moments that `optimizer_tensors` gave.

    Raises:
        ConfigError: they are of another model; nothing was changed.
    """
    parameters = dict(model.named_parameters())
    named = {f"{each}.{name}": (each, name) for each in _MOMENTS for name in parameters}
    if not moments.keys() <= named.keys():
        raise ConfigError("the optimizer's state is not that of this model")
    for key, value in moments.items():
        moment, name = named[key]
        parameter = parameters[name]
        kept = optimizer.state[parameter]
        kept["step"] = torch.tensor(float(step), device=parameter.device)
        kept[moment] = value.to(parameter.device)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
