"""Checkpoints of 4M: weights under the reference's names, and the optimizers' state."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.train import saving
from fourmill.train.described import reference_config
from fourmill.train.exchange import as_named_by, load_reference, reference_state
from fourmill.train.model import FourM
from fourmill.train.saving import Contents, State

WEIGHTS, AVERAGE, _MOMENTS = (f"{each}.safetensors" for each in ("model", "average", "optimizer"))


@dataclass(frozen=True)
class Loaded:
    """The last checkpoint of a run; the model has its weights.

    Attributes:
        average: averaged weights, where there are, by the model's own names.
        moments: of the optimizers.
    """

    state: State
    average: dict[str, Tensor] | None
    moments: dict[str, Tensor]


def contents_of(
    model: FourM,
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor] | None,
    moments: Mapping[str, Tensor],
) -> dict[str, Contents]:
    """The files of a checkpoint.

    Args:
        weights: by the model's own names; `average` and `moments` too.
    """
    config = reference_config(model)
    files = {
        WEIGHTS: Contents(reference_state(model, weights), config),
        _MOMENTS: Contents(moments),
    }
    if average is not None:
        files[AVERAGE] = Contents(reference_state(model, average), config)
    return files


def load_last(out: Path, model: FourM) -> Loaded | None:
    """Go back to the last checkpoint that can be read; `None` where there is none at all.

    Raises:
        TrainingError: there are some, but none can be read.
    """
    found: list[Loaded] = []

    def load(folder: Path, state: State) -> None:
        weights, moments = load_file(folder / WEIGHTS), load_file(folder / _MOMENTS)
        average = None
        if (folder / AVERAGE).exists():
            load_reference(model, load_file(folder / AVERAGE), str(folder / AVERAGE))
            average = {name: each.detach().clone() for name, each in model.named_parameters()}
        load_reference(model, weights, str(folder))
        found.append(Loaded(state, average, moments))

    return found[0] if saving.load_last(out, load) else None


def load_weights(place: Path, model: FourM) -> None:
    """The weights of a checkpoint, of a run's or of the reference's.

    Args:
        place: a checkpoint, of which averaged weights count if it has them; any folder with
            `model.safetensors`; or a file.

    Raises:
        ConfigError: it cannot be read, or is not of this model.
    """
    path = place
    if place.is_dir():
        path = place / (AVERAGE if (place / AVERAGE).exists() else WEIGHTS)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    load_reference(model, as_named_by(model.domains, state), str(path))
