"""Low-rank adapters (Hu et al. 2022) on the matrices of transformer blocks, by peft.

Adapters on fused projections (`qkv`, `kv`, `gate_up`) have one rank for all that is fused.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.train.blocks import GatedMLP
from fourmill.train.model import clear_padding
from fourmill.train.tensor_files import write_tensors

LAYERS = ("qkv", "kv", "q", "proj", "gate_up", "fc1", "fc2")
"""The matrices of encoder and decoder blocks, by their last name."""

_MARK = ".lora_"


def add_lora(
    module: nn.Module,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    layers: Sequence[str] = LAYERS,
    seed: int = 0,
) -> list[str]:
    """Put adapters on matrices of blocks, in place; all else is frozen.

    An adapted module computes what it computed before, until it is trained.

    Args:
        alpha: what adapters are multiplied by, times the rank; by default the rank.
        layers: last names of the matrices.

    Returns:
        Names of the adapted matrices.

    Raises:
        MissingPackageError: peft is not installed.
        ConfigError: no matrix of these names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPackageError(
            "LoRA needs peft: install fourmill with the extra `lora`"
        ) from error
    chosen = [
        name for name, each in module.named_modules()
        if isinstance(each, nn.Linear) and _is_of_a_block(name) and name.split(".")[-1] in layers
    ]  # fmt: skip
    if not chosen:
        raise ConfigError(f"lora: found no matrix called {' or '.join(layers)} in a block")
    config = LoraConfig(
        r=rank, lora_alpha=alpha if alpha is not None else rank,  # type: ignore[arg-type]
        lora_dropout=dropout, target_modules=chosen,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, module)
    for name, each in module.named_parameters():
        each.requires_grad_(_MARK in name)
    return chosen


def merge_lora(module: nn.Module) -> None:
    """Add adapters to their matrices, and take them off, in place.

    What was computed stays the same but for rounding.
    """
    from peft.tuners.lora import LoraLayer

    for name, each in list(module.named_modules()):
        if isinstance(each, LoraLayer):
            each.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, each.get_base_layer())
    for each in module.modules():
        if isinstance(each, GatedMLP):
            clear_padding(each)


def adapters(module: nn.Module) -> dict[str, Tensor]:
    """The adapters' own tensors, by name."""
    return {
        name: each.detach() for name, each in module.named_parameters() if _MARK in name
    }  # fmt: skip


def save_adapters(module: nn.Module, file: Path) -> None:
    """Write the adapters alone, as safetensors.

    Raises:
        ConfigError: the module has none.
    """
    found = adapters(module)
    if not found:
        raise ConfigError(f"{file}: there are no adapters to write: `add_lora` makes some")
    write_tensors({name: each.cpu().contiguous() for name, each in found.items()}, file)


def load_adapters(module: nn.Module, file: Path) -> None:
    """Set the adapters of a module that has them from a file.

    Raises:
        ConfigError: the file cannot be read, or has other adapters; nothing was changed.
    """
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file}: cannot be read as safetensors: {error}") from error
    mine = adapters(module)
    shapes = {name: tuple(each.shape) for name, each in mine.items()}
    if {name: tuple(each.shape) for name, each in state.items()} != shapes:
        raise ConfigError(
            f"{file}: not the adapters of this model, or of another rank: it has {len(state)} "
            f"tensors, expected {len(shapes)}"
        )
    with torch.no_grad():
        for name, each in mine.items():
            each.copy_(state[name])


def _is_of_a_block(name: str) -> bool:
    return bool({"blocks", "encoder", "decoder"} & set(name.split(".")))
