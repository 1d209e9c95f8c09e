"""Weights of 4M wherever they lie, as models of ours: published ones, and those of our own runs.

`EPFL-VILAB/4M-7_B_CC12M` and all others of a model hub, or a copy: a folder with `config.json` and
`model.safetensors`, or one such file with the settings in its metadata. A run's folder, one of its
checkpoints, or what `fourmill convert` writes. Only tensors and settings are read: no pickles.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from safetensors import SafetensorError, safe_open

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.hub import HubWeights
from fourmill.train import runs
from fourmill.train.checkpoint import AVERAGE, WEIGHTS
from fourmill.train.config import MaskingConfig
from fourmill.train.described import OWN, described_by, read_settings
from fourmill.train.domains import Domains
from fourmill.train.exchange import Names, load_reference
from fourmill.train.model import FourM, ModelShape

Which = Literal["model", "average"]
"""The weights that were trained, or their averages."""

_FILES: dict[Which, str] = {"model": WEIGHTS, "average": AVERAGE}
_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
_SETTINGS = "config.json"


@dataclass(frozen=True)
class Published:
    """A file of weights, and the model that it is of.

    Attributes:
        tensors: under the reference's names, read from the file as they are needed.
        is_ours: whether a run of ours wrote it, or `fourmill convert --to fourmill`.
        masking: what it was trained with, where a run says so.
    """

    file: Path
    domains: Domains
    shape: ModelShape
    tensors: Names
    is_ours: bool
    masking: MaskingConfig | None = None

    def load(self) -> FourM:
        """The model, see `load_published`."""
        model = FourM(self.domains, self.shape)
        load_reference(model, self.tensors, str(self.file))
        model.masking = self.masking
        return model


def load_published(where: str | Path, weights: Which = "model") -> FourM:
    """A model with all its weights, on the CPU, in float32.

    Args:
        where: an id of a model hub, also as `id@revision`; a safetensors file; a folder with
            `model.safetensors`; or a run, of which the last checkpoint is taken.
        weights: `average` for the averages that a run with `ema` keeps.

    Raises:
        ConfigError: there is none, it is damaged or a pickle, its settings are missing, or are not
            those of its tensors or of a model that is supported.
        MissingPackageError: an id that is not on this machine and cannot be fetched.
    """
    return open_published(where, weights).load()


def open_published(where: str | Path, weights: Which = "model") -> Published:
    """What `load_published` loads, without loading it.

    Raises:
        ConfigError, MissingPackageError: as there.
    """
    file = weights_file(where, weights)
    metadata, tensors = _read(file)
    run = run_of(file)
    if run is not None:
        shape = ModelShape(**run.config.model.model_dump(exclude={"preset"}))
        masking = run.config.masking
        return Published(file, run.domains, shape, tensors, is_ours=True, masking=masking)
    settings = _settings(file, metadata)
    domains, shape = described_by(settings, tensors, file)
    return Published(file, domains, shape, tensors, is_ours=OWN in settings)


def weights_file(where: str | Path, weights: Which = "model") -> Path:
    """The file of the weights that `load_published` loads.

    Raises:
        ConfigError, MissingPackageError: as there.
    """
    return _file_in(located(where), weights)


def hub_weights(where: str | Path) -> HubWeights | None:
    """The repository of a model hub that is meant, `None` where it is a place on this machine."""
    path, name = Path(where), str(where)
    is_place = path.exists() or path.suffix == ".safetensors" or path.parent.is_dir()
    if is_place or not _ID.fullmatch(name):
        return None
    id_, _, revision = name.partition("@")
    return HubWeights(id_, revision or None)


def located(where: str | Path) -> Path:
    """The file or folder, fetched if it is a hub's.

    Raises:
        ConfigError: there is none.
        MissingPackageError: an id that is not on this machine and cannot be fetched.
    """
    hub = hub_weights(where)
    path = hub.folder() if hub else Path(where)
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file or folder, and no id of a model hub, which would be like "
            f"EPFL-VILAB/4M-7_B_CC12M"
        )
    return path


def _file_in(path: Path, weights: Which) -> Path:
    if path.is_file():
        _refuse_pickle(path)
        return path
    if (path / "run.json").exists():
        found = runs.checkpoints(path)
        if not found:
            raise ConfigError(f"{path}: a run without checkpoints: `fourmill train` makes them")
        path = found[0]
    file = path / _FILES[weights]
    if file.is_file():
        return file
    if weights == "average" and (path / WEIGHTS).is_file():
        raise ConfigError(
            f"{path}: has no averaged weights: only runs with `ema` keep some; take the others"
        )
    for each in sorted(path.iterdir()):
        _refuse_pickle(each)
    raise ConfigError(f"{path}: found no {file.name} in this folder")


def _refuse_pickle(file: Path) -> None:
    if file.suffix in _PICKLES:
        raise ConfigError(
            f"{file}: a pickle, which can run any program when it is read. Take the safetensors "
            f"file of the same model, or write one of it (docs/published-models.md says how)"
        )


def _read(file: Path) -> tuple[dict[str, str], Names]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{file}: cannot be read as safetensors ({error}): it is cut off or damaged: fetch or "
            f"write it again"
        ) from error
    # tied tensors that were not written twice: the metadata says where they are
    for name, other in list(metadata.items()):
        if name not in tensors and other in tensors:
            tensors[name] = tensors[other]
            del metadata[name]
    return metadata, tensors


def run_of(file: Path) -> runs.Run | None:
    """The run that a checkpoint's file belongs to."""
    folder = file.resolve().parent.parent
    return runs.read_run(folder.parent) if folder.name == "checkpoints" else None


def _settings(file: Path, metadata: dict[str, str]) -> dict[str, Any]:
    beside = file.with_name(_SETTINGS)
    try:
        if "domains_in" in metadata:
            return read_settings(metadata)
        if beside.is_file():
            return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: its settings are not readable: {error}") from error
    raise ConfigError(
        f"{file}: nothing says which model this is: its metadata lacks domains_in, and there is no "
        f"{_SETTINGS} beside it: put the one that was published with it there"
    )
