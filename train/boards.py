"""Where else metrics go: event files of TensorBoard, Weights & Biases. Both are extras."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fourmill.manifests.errors import ConfigError


@runtime_checkable
class Board(Protocol):
    """What shows numbers over steps."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name, `train/loss`."""


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("tensorboard: true needs the extra fourmill[tensorboard]") from error
        self._writer = SummaryWriter(str(folder))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is not yet written."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a project there; the same one when a training goes on."""

    def __init__(self, project: str, out: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("wandb needs the extra fourmill[wandb]") from error
        self._run = wandb.init(
            project=project, name=out.name, dir=str(out), config=dict(config), resume="allow"
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Send them."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is not yet sent."""
        self._run.finish()


@contextmanager
def boards(
    out: Path, tensorboard: bool, wandb: str | None, config: Mapping[str, Any]
) -> Iterator[list[Board]]:
    """The boards that a configuration asks for.

    Raises:
        ConfigError: one that is not installed.
    """
    opened: list[TensorBoard | WeightsAndBiases] = []
    try:
        if tensorboard:
            opened.append(TensorBoard(out / "tensorboard"))
        if wandb is not None:
            opened.append(WeightsAndBiases(wandb, out, config))
        yield list(opened)
    finally:
        for each in opened:
            each.close()
