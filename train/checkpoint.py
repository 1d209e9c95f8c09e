"""Checkpoints of 4M: weights under the reference's names, and the optimizer's state."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fourmill.manifests.errors import ConfigError
from fourmill.train import saving
from fourmill.train.exchange import load_reference, reference_state
from fourmill.train.model import FourM
from fourmill.train.saving import State

_WEIGHTS = "model.safetensors"
_MOMENTS = "optimizer.safetensors"


def save_checkpoint(
    out: Path, model: FourM, optimizer: torch.optim.Optimizer, state: State, keep: int
) -> Path:
    """Write a checkpoint, then remove all but the last `keep`."""

    def write(folder: Path) -> None:
        save_file(reference_state(model), folder / _WEIGHTS, reference_config(model))
        save_file(saving.optimizer_tensors(model, optimizer), folder / _MOMENTS)

    return saving.save(out, state, keep, write)


def load_last(out: Path, model: FourM, optimizer: torch.optim.Optimizer) -> State | None:
    """Go back to the last checkpoint that can be read; `None` where there is none at all.

    Raises:
        TrainingError: there are some, but none can be read.
    """

    def load(folder: Path, state: State) -> None:
        weights, moments = load_file(folder / _WEIGHTS), load_file(folder / _MOMENTS)
        saving.restore_optimizer(model, optimizer, moments, state.step)
        load_reference(model, weights, str(folder))

    return saving.load_last(out, load)


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
