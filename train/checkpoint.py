"""Checkpoints: weights under the reference's names, optimizer state, and how far the run is.

They are written aside and renamed, so that what is there is whole. Nothing is pickled.
"""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train import runs
from fourmill.train.exchange import load_reference, reference_state
from fourmill.train.model import FourM

_log = logging.getLogger(__name__)

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        step: finished steps; order, crops, masks and learning rate follow from it.
        seconds: spent on them so far, over all restarts.
    """

    step: int
    seconds: float


def save_checkpoint(
    out: Path, model: FourM, optimizer: torch.optim.Optimizer, state: State, keep: int
) -> Path:
    """Write a checkpoint, then remove all but the last `keep`."""
    place = out / "checkpoints" / f"step-{state.step:08d}"
    aside = place.with_name(f".{place.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(reference_state(model), aside / "model.safetensors", reference_config(model))
    save_file(_optimizer_tensors(model, optimizer), aside / "optimizer.safetensors")
    (aside / "state.json").write_text(json.dumps(vars(state)), encoding="utf-8")
    for path in aside.iterdir():
        _sync(path)
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
    for old in runs.checkpoints(out)[keep:]:
        shutil.rmtree(old)
    return place


def load_last(out: Path, model: FourM, optimizer: torch.optim.Optimizer) -> State | None:
    """Go back to the last checkpoint that can be read; `None` where there is none at all.

    Raises:
        TrainingError: there are some, but none can be read.
    """
    found = runs.checkpoints(out)
    for place in found:
        try:
            return _load(place, model, optimizer)
        except (OSError, ValueError, KeyError, SafetensorError, ConfigError) as error:
            _log.warning("%s cannot be read (%s): going back to the one before", place, error)
    if found:
        raise TrainingError(
            f"{out}: none of its {len(found)} checkpoints can be read; begin anew with --fresh"
        )
    return None


def load_weights(place: Path, model: FourM) -> None:
    """The weights of a checkpoint, of a run's or of the reference's.

    Args:
        place: a folder with `model.safetensors`, or the file.

    Raises:
        ConfigError: it cannot be read, or is not of this model.
    """
    path = place / "model.safetensors" if place.is_dir() else place
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    load_reference(model, state, str(path))


def reference_config(model: FourM) -> dict[str, str]:
    """The model's configuration as the reference writes it into a file's metadata."""
    shape, domains = model.shape, model.domains
    grids = [each for each in domains.modalities if each.input_size]
    values = {
        "domains_in": list(domains.inputs),
        "domains_out": list(domains.targets),
        "image_size": max((each.input_size for each in grids), default=224),
        "patch_size": max((each.patch_size for each in grids), default=16),
        "dim": shape.dim,
        "encoder_depth": shape.encoder_depth,
        "decoder_depth": shape.decoder_depth,
        "num_heads": shape.heads,
        "mlp_ratio": shape.mlp_ratio,
        "qkv_bias": shape.bias,
        "proj_bias": shape.bias,
        "mlp_bias": shape.bias,
        "norm_bias": shape.bias,
        "act_layer": "SiLU" if shape.gated else "GELU",
        "gated_mlp": shape.gated,
        "qk_norm": shape.qk_norm,
        "share_modality_embeddings": False,  # tied tensors are written out
    }
    return {name: str(value) for name, value in values.items()}


def _load(place: Path, model: FourM, optimizer: torch.optim.Optimizer) -> State:
    weights = load_file(place / "model.safetensors")
    moments = load_file(place / "optimizer.safetensors")
    state = State(**json.loads((place / "state.json").read_text(encoding="utf-8")))
    parameters = dict(model.named_parameters())
    named = {f"{each}.{name}": (each, name) for each in _MOMENTS for name in parameters}
    if not moments.keys() <= named.keys():
        raise ConfigError(f"{place}: the optimizer's state is not that of this model")
    load_reference(model, weights, str(place))
    for key, value in moments.items():
        moment, name = named[key]
        parameter = parameters[name]
        kept = optimizer.state[parameter]
        kept["step"] = torch.tensor(float(state.step), device=parameter.device)
        kept[moment] = value.to(parameter.device)
    return state


def _optimizer_tensors(model: FourM, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state  # tables without rows never get a gradient
        for moment in _MOMENTS
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
