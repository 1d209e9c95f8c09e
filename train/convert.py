"""Models as files for the reference implementation, or for runs of ours: `fourmill convert`.

Both are safetensors under the reference's names. A file for the reference has the names of its
modalities and its settings, and no others. One of ours defines its modalities too, so that a model
of any modalities can be made from the file alone.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fourmill.manifests.errors import ConfigError
from fourmill.train.checkpoint import WEIGHTS
from fourmill.train.described import (
    foreign_to_reference,
    own_config,
    reference_config,
    reference_names,
    settings_of,
)
from fourmill.train.exchange import (
    fixed_tensors,
    parameter_counts,
    reference_state,
    rename_modalities,
    to_reference,
)
from fourmill.train.model import FourM
from fourmill.train.published import Published
from fourmill.train.tensor_files import write_tensors

Layout = Literal["reference", "fourmill"]

_SETTINGS = "config.json"


@dataclass(frozen=True)
class Conversion:
    """What was written, or would be.

    Attributes:
        parameters: numbers that are trained, each once.
        block_parameters: those of them that belong to no modality: the size that 4M goes by.
        bytes: of all files; of a plan, of the tensors alone.
        notes: what the reference has to be taught before it can read the file.
    """

    source: str
    target: str
    to: Layout
    inputs: list[str]
    targets: list[str]
    parameters: int
    block_parameters: int
    tensors: int
    bytes: int
    notes: list[str]


def convert(source: Published, target: Path, to: Layout, force: bool = False) -> Conversion:
    """Write a model in another layout; whatever was there stays until all is written.

    Args:
        target: a file if it ends in `.safetensors`, else a folder.
        force: replace a model that is there.

    Raises:
        ConfigError: the source's tensors are not those of its model, or the target is there.
    """
    _refuse_place(target, force)
    model = source.load()
    with _aside(target) as new:
        write_model(model, new, to)
        written = [new] if new.is_file() else list(new.iterdir())
        size = sum(each.stat().st_size for each in written)
    return _told(model, source, target, to, size)


def plan_conversion(source: Published, target: Path, to: Layout, force: bool = False) -> Conversion:
    """What `convert` would write; the tensors are not read.

    Raises:
        ConfigError: the target is there.
    """
    _refuse_place(target, force)
    with torch.device("meta"):
        model = FourM(source.domains, source.shape)
    size = sum(each.nbytes for each in reference_state(model).values())
    return _told(model, source, target, to, size)


def write_model(model: FourM, place: Path, to: Layout) -> None:
    """Write a model into a file that ends in `.safetensors`, or into a folder as a hub has it."""
    names = reference_names(model.domains) if to == "reference" else {}
    metadata = reference_config(model, names) if to == "reference" else own_config(model)
    state = rename_modalities(reference_state(model), names)
    if place.suffix == ".safetensors":
        write_tensors(state, place, metadata)
        return
    place.mkdir(parents=True)
    write_tensors(state, place / WEIGHTS, metadata)
    if to == "reference":
        text = json.dumps(settings_of(model, names), indent=2)
        (place / _SETTINGS).write_text(text + "\n", encoding="utf-8")


def _refuse_place(target: Path, force: bool) -> None:
    """Refuse what would replace anything, but with `force` a model."""
    if not target.exists():
        return
    if target.is_dir():
        names = sorted(each.name for each in target.iterdir())
        others = [name for name in names if name not in (WEIGHTS, _SETTINGS)]
    else:
        others = [] if target.suffix == ".safetensors" else [target.name]
    if others:
        raise ConfigError(
            f"{target}: is there, and no converted model (found {', '.join(others[:3])}): give a "
            f"new folder, or a file that ends in .safetensors"
        )
    if not force:
        raise ConfigError(f"{target}: is there: give another place, or --force to replace it")


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A place beside the target that takes its name at the end."""
    new = target.with_name(f".new-{target.name}")
    old = target.with_name(f".old-{target.name}")
    _remove(new)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield new
    except BaseException:
        _remove(new)
        raise
    _remove(old)
    if target.is_dir():  # a folder cannot be renamed onto one that has files
        target.rename(old)
    new.rename(target)
    _remove(old)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _told(model: FourM, source: Published, target: Path, to: Layout, size: int) -> Conversion:
    names = reference_names(model.domains) if to == "reference" else {}
    settings = settings_of(model, names)
    parameters, blocks = parameter_counts(model)
    return Conversion(
        source=str(source.file),
        target=str(target),
        to=to,
        inputs=settings["domains_in"],
        targets=settings["domains_out"],
        parameters=parameters,
        block_parameters=blocks,
        tensors=len(to_reference(model) | fixed_tensors(model)),
        bytes=size,
        notes=foreign_to_reference(model.domains) if to == "reference" else [],
    )
