"""What tokenizers that are a network have in common: files, devices, and which ids there are."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Modality
from fourmill.tokenize.base import Tokenizer, TokenizerSpec

WEIGHTS_FILE = "model.safetensors"

_GPU_BATCH = 256  # rows in one pass of a network on a GPU, which fewer would leave idle

_DAMAGE = (KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValidationError)


class NetworkTokenizer(Tokenizer):
    """A tokenizer whose tokens and labels a network makes.

    Its constructor takes what its spec's `config` holds, with the modality and the network made of
    their entries.

    Args:
        definition: of the modality that it encodes; it is stored with the tokenizer.
        tokens: the modality of its tokens.
    """

    what: ClassVar[str]
    """For messages: `a VQ tokenizer`."""

    batch: ClassVar[int] = 16
    """Rows in one pass of the network, always as many: a matrix product may round differently for
    another number, and a token must not depend on what else is in the batch."""

    def __init__(self, definition: Modality, network: nn.Module, tokens: Modality) -> None:
        self.definition = definition
        self.network = network.eval().requires_grad_(False)
        self._tokens = tokens

    @classmethod
    def load(cls, folder: Path, spec: TokenizerSpec) -> "NetworkTokenizer":
        """Read what `save` wrote.

        Raises:
            ConfigError: the weights are not there, or are those of another network.
        """
        try:
            config = dict(spec.config)
            with torch.device("meta"):  # the file has all values: nothing is to be drawn
                network = cls.make_network(config.pop("network"))
            network.load_state_dict(load_file(folder / WEIGHTS_FILE), assign=True)
            definition = Modality.of(config.pop("definition"))
            return cls(definition=definition, network=network, **config)
        except _DAMAGE as error:
            raise ConfigError(f"{folder}: not {cls.what}: {error}") from error

    @staticmethod
    @abstractmethod
    def make_network(config: Mapping[str, Any]) -> nn.Module:
        """A new network, of the configuration that `spec.json` holds."""

    def save(self, folder: Path) -> None:
        """Write `spec.json` and `model.safetensors`."""
        super().save(folder)
        state = self.network.state_dict()
        save_file({name: each.contiguous() for name, each in state.items()}, folder / WEIGHTS_FILE)

    def to(self, device: str) -> "NetworkTokenizer":
        """Move the network; tokens may differ between devices where two codes are as near."""
        self.network.to(device)
        return self

    @property
    def token_modality(self) -> Modality:
        """Of its tokens."""
        return self._tokens

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _in_batches(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """What a pass of the network gives for rows, on the CPU; the last pass is filled up."""
        size = self.batch if self.device.type == "cpu" else _GPU_BATCH
        found = []
        for batch in torch.split(rows, size):
            missing = size - len(batch)
            filled = F.pad(batch, (0, 0) * (batch.ndim - 1) + (0, missing)) if missing else batch
            found.append(function(filled.to(self.device)).cpu())
        return torch.cat(found)[: len(rows)]

    def _refuse_other_ids(self, ids: NDArray[Any] | Tensor) -> None:
        """Complain about ids that no code has.

        Raises:
            ConfigError: it says which.
        """
        if ids.min() < 0 or ids.max() >= self.spec.vocab_size:
            raise ConfigError(
                f"{self.spec.modality}: found ids {int(ids.min())} to {int(ids.max())}, expected 0 "
                f"to {self.spec.vocab_size - 1}"
            )
