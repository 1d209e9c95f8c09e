"""Networks of fine-tunings: made of a trained model, written when they are done, and read again."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Modality
from fourmill.train.domains import Domains
from fourmill.train.model import ModelShape
from fourmill.train.runs import replace_file
from fourmill.train.tensor_files import write_tensors
from fourmill.train.transfer.backbone import Backbone
from fourmill.train.transfer.config import FinetuneConfig, HeadConfig, TaskName
from fourmill.train.transfer.network import Network, Pooling, normalised
from fourmill.train.transfer.plan import RESULT, WEIGHTS
from fourmill.train.transfer.tasks import Task

_SETTINGS = "fourmill_finetuned"
_BACKBONE = "backbone."


@dataclass(frozen=True)
class Finished:
    """A fine-tuned network, ready to answer.

    Attributes:
        classes: names of a classifier's answers.
        size: side of the crops that it was trained on, in pixels.
    """

    network: Network
    task: TaskName
    classes: tuple[str, ...]
    size: int

    @torch.no_grad()
    def __call__(
        self, images: UInt8[Tensor, "B 3 H W"], tokens: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Probabilities of classes, depth in the dataset's unit `[B, 1, H, W]`, scores of classes
        `[B, K, H, W]`, or unit vectors `[B, 3, H, W]`."""
        outputs: Tensor = self.network(normalised(images), tokens).float()
        if self.task == "classification":
            return outputs.softmax(1)
        if self.task == "depth":
            return outputs.exp()
        return outputs if self.task == "segmentation" else torch.nn.functional.normalize(outputs)


def build_network(config: FinetuneConfig, task: Task) -> Network:
    """A trained model's encoder with a fresh head.

    Raises:
        ConfigError: there is no such model, or it has not what the configuration takes of it.
        MissingPackageError: a model that is not on this machine and cannot be fetched.
    """
    backbone = Backbone.load(config.model, config.others, config.size, config.weights)
    if config.pooling == "registers" and not backbone.num_prefix_tokens:
        raise ConfigError(f"{config.model}: this model has no registers: take pooling mean")
    head = config.head if task.is_dense else None
    return Network(backbone, task.outputs, head, config.pooling, config.seed)


def take_encoder(network: Network, folder: Path) -> None:
    """Give a network the encoder of a finished fine-tuning; its head stays.

    Raises:
        ConfigError: there is none, or it is of another model.
    """
    state, _ = _read(folder / WEIGHTS)
    encoder = {
        name.removeprefix(_BACKBONE): each
        for name, each in state.items() if name.startswith(_BACKBONE)
    }  # fmt: skip
    _load(network.backbone, encoder, folder / WEIGHTS)


def write_finished(
    network: torch.nn.Module, config: FinetuneConfig, classes: Sequence[str],
    result: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the network, with adapters merged, and at last the result."""
    assert isinstance(network, Network)
    whole = deepcopy(network).cpu()
    if config.lora is not None:
        from fourmill.train.transfer.lora import merge_lora, save_adapters

        save_adapters(network, config.out / "adapters.safetensors")
        merge_lora(whole)
    backbone = whole.backbone
    settings = {
        "task": config.task,
        "classes": list(classes),
        "outputs": whole.outputs,
        "size": config.size or backbone.input_size,
        "pooling": config.pooling,
        "head": config.head.model_dump() if whole.is_dense else None,
        "pixels": backbone.pixels.name,
        "others": list(backbone.others),
        "modalities": [each.record() for each in backbone.modalities],
        "shape": asdict(backbone.shape),
    }
    aside = config.out / f".{WEIGHTS}"
    state = {name: each.contiguous() for name, each in whole.state_dict().items()}
    write_tensors(state, aside, {_SETTINGS: json.dumps(settings)})
    aside.replace(config.out / WEIGHTS)
    replace_file(config.out / RESULT, json.dumps(result, indent=1).encode())


def load_finished(where: Path, device: str = "cpu") -> Finished:
    """The network of a finished fine-tuning.

    Args:
        where: its folder, or its file of weights.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    file = where / WEIGHTS if where.is_dir() else where
    state, settings = _read(file)
    try:
        modalities = tuple(Modality.of(each) for each in settings["modalities"])
        names = tuple(each.name for each in modalities)
        shape = TypeAdapter(ModelShape).validate_python(settings["shape"])
        head = None if settings["head"] is None else HeadConfig(**settings["head"])
        pooling: Pooling = settings["pooling"]
        backbone = Backbone(
            Domains(modalities, names, ()), shape, settings["pixels"], settings["others"]
        )
        network = Network(backbone, settings["outputs"], head, pooling)
        classes, size = tuple(settings["classes"]), int(settings["size"])
        task: TaskName = settings["task"]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ConfigError(f"{file}: its settings are not readable: {error}") from error
    _load(network, state, file)
    return Finished(network.to(device).eval(), task, classes, size)


def _load(module: torch.nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{file}: weights of another network: {error}") from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        settings: dict[str, Any] = json.loads(metadata[_SETTINGS])
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file}: cannot be read as safetensors: {error}") from error
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{file}: not the network of a fine-tuning ({error})") from error
    return state, settings
