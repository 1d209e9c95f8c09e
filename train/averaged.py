"""A network in training with its moving average and its optimizers: what a checkpoint holds."""

from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError
from fourmill.train.averages import follow_average
from fourmill.train.optim import Optimizers
from fourmill.train.saving import Contents, State

NETWORK, AVERAGE, _OPTIMIZER = (
    f"{name}.safetensors" for name in ("network", "average", "optimizer")
)


class Averaged:
    """A network that is trained.

    Args:
        ema: decay of the moving average, 0 for none.
        is_partial: what is frozen is not written: it still is where it came from.

    Attributes:
        average: the moving average as a network of its own, where there is one.
    """

    def __init__(
        self, network: nn.Module, optimizers: Optimizers, ema: float, is_partial: bool = False
    ) -> None:
        self.network, self.optimizers, self._ema = network, optimizers, ema
        self.average = deepcopy(network).requires_grad_(False) if ema else None
        self._left_out = {
            name for name, each in network.named_parameters()
            if is_partial and not each.requires_grad
        }  # fmt: skip

    @property
    def best(self) -> nn.Module:
        """The average, or the network where there is none."""
        return self.network if self.average is None else self.average

    def restart_average(self) -> None:
        """The average is the network as it is now."""
        if self.average is not None:
            self.average.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the average towards the network after a step."""
        if self.average is None:
            return
        pairs = [
            (mine, its)
            for (name, its), mine in zip(
                self.network.named_parameters(), self.average.parameters(), strict=True
            )
            if name not in self._left_out
        ]
        averaged, current = ([pair[side] for pair in pairs] for side in (0, 1))
        follow_average(averaged, current, self._ema, step)
        for mine, its in zip(self.average.buffers(), self.network.buffers(), strict=True):
            mine.copy_(its)  # code books are averages themselves

    def contents(self) -> dict[str, Contents]:
        """The files of a checkpoint."""
        files = {
            NETWORK: Contents(self._state(self.network)),
            _OPTIMIZER: Contents(self.optimizers.moments(self.network)),
        }
        if self.average is not None:
            files[AVERAGE] = Contents(self._state(self.average))
        return files

    def load(self, folder: Path, state: State) -> None:
        """Set all from a checkpoint; what `saving.load_last` takes.

        Raises:
            ConfigError: weights of another network.
            OSError, SafetensorError: files are missing or damaged.
        """
        read = {name: load_file(folder / name) for name in (NETWORK, _OPTIMIZER)}
        average = load_file(folder / AVERAGE) if self.average is not None else {}
        self._set(self.network, read[NETWORK], folder)
        if self.average is not None:
            self._set(self.average, average, folder)
        self.optimizers.restore(self.network, read[_OPTIMIZER], state.step)

    def _state(self, network: nn.Module) -> dict[str, Tensor]:
        return {
            name: each for name, each in network.state_dict().items() if name not in self._left_out
        }

    def _set(self, network: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        try:
            found = network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ConfigError(f"{folder}: weights of another network: {error}") from error
        missing = set(found.missing_keys) - self._left_out
        if missing or found.unexpected_keys:
            first = sorted({*missing, *found.unexpected_keys})[0]
            raise ConfigError(f"{folder}: weights of another network: {first} differs")
