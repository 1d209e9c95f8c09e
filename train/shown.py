"""What was given and what was generated from it, side by side: as one picture, and as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label, encode_label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.render import render, sheet
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.train.generate import Conditions
from fourmill.train.runs import replace_file
from fourmill.train.sampler import Sampler
from fourmill.train.schedules import GenerationStep

_SQUARE = 256  # pixels of the side of a picture that is shown


@dataclass
class Shown:
    """Some samples: a row each, and for each variant.

    Attributes:
        rows: names of the rows.
        conditions: what the model is given, a row each.
        given: by the model's modality, definition and labels of what is given.
        generated: the same of what was generated.
        tokens: of what was generated.
        images: centre crops, where there are pictures.
    """

    rows: list[str]
    conditions: Conditions
    given: dict[str, tuple[Modality, list[Label | None]]]
    images: list[UInt8[np.ndarray, "size size 3"] | None]
    generated: dict[str, tuple[Modality, list[Label | None]]] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)

    def generate(
        self, sampler: Sampler, steps: Sequence[GenerationStep], seed: int, apart: bool
    ) -> None:
        """Fill `generated`: a chain, or each target from what is given alone.

        Raises:
            ConfigError, UnknownNameError: as `generate.generate`.
        """
        plans = [[step] for step in steps] if apart else [list(steps)]
        for plan in plans:
            for name, tokens in sampler.generate(self.conditions, plan, seed).items():
                self.tokens[name] = tokens
                self.generated[name] = (sampler.stored(name), [*sampler.decode(name, tokens)])

    def texts(self) -> list[dict[str, Any]]:
        """Of each row the name, and what was generated that can be read."""
        rows: list[dict[str, Any]] = [{"sample": name} for name in self.rows]
        for definition, labels in self.generated.values():
            if definition.kind in (Kind.TEXT, Kind.BOXES, Kind.STRUCTURE):
                for row, label in zip(rows, labels, strict=True):
                    row[definition.name] = label
        return rows


def from_labels(
    sampler: Sampler, labels: Mapping[str, Sequence[Label | None]], names: Sequence[str],
    variants: int,
) -> Shown:  # fmt: skip
    """Samples of which labels are given.

    Raises:
        ConfigError, SampleError, UnknownNameError: as `Sampler.conditions`.
    """
    rows = np.repeat(np.arange(len(names)), variants).tolist()
    conditions = _repeated(sampler.conditions(len(names), labels), np.array(rows, np.int64))
    columns = {name: [each[row] for row in rows] for name, each in labels.items()}
    pictures = columns.get("rgb", [None] * len(rows))
    images = [None if each is None else _centre(np.asarray(each)) for each in pictures]
    given = {}
    for name, column in columns.items():
        chosen = sampler.resolve(name)
        if name != "rgb":
            given[chosen] = (sampler.stored(chosen), column)
    return Shown(_titles(names, variants), conditions, given, images)


def from_dataset(
    sampler: Sampler, where: str | Path, inputs: Sequence[str], samples: int, variants: int
) -> Shown:
    """Held-out samples of the dataset that a run was trained on, spread evenly.

    Args:
        where: the run's folder, or the YAML file that it was trained with.
        inputs: what is given of them; pixels by default.

    Raises:
        ConfigError: there is no run, or a sample lacks the pixels.
        UnknownNameError: an input that the model does not know.
    """
    from fourmill.train.predict import held_out, pixel_inputs

    domains = sampler.domains
    chosen = [sampler.resolve(name) for each in inputs for name in each.split(",") if name]
    chosen = chosen or pixel_inputs(domains) or list(domains.inputs[:1])
    found = held_out(where, domains, samples)
    conditions = Conditions.of(found.batch.to(sampler.device), chosen)
    rows = np.repeat(np.arange(len(found.keys)), variants)
    given = {}
    for name in chosen:
        if name in found.batch.tokens:
            decoded = sampler.decode(name, found.batch.tokens[name].numpy().astype(np.int64))
            valid = found.batch.valid[name].numpy()
            labels: list[Label | None] = [decoded[row] if valid[row] else None for row in rows]
            given[name] = (sampler.stored(name), labels)
    images: list[Any] = [found.images[row] for row in rows]
    return Shown(_titles(found.keys, variants), _repeated(conditions, rows), given, images)


def draw(shown: Shown, size: int = 160) -> Image.Image:
    """A row a sample and variant: its picture, what else was given, and what was generated."""
    columns, cells = [], []
    if any(image is not None for image in shown.images):
        columns.append("picture")
        cells.append([_square(image, size) for image in shown.images])
    for mark, group in (("given", shown.given), ("generated", shown.generated)):
        for definition, labels in group.values():
            columns.append(f"{definition.name}\n{mark}")
            cells.append([
                render(definition, label, size, image)
                for label, image in zip(labels, shown.images, strict=True)
            ])  # fmt: skip
    rows = [list(row) for row in zip(*cells, strict=True)]
    return sheet(rows, columns, shown.rows)


def write_labels(shown: Shown, folder: Path) -> list[str]:
    """What was generated as files, as shards hold them: `ROW.MODALITY.EXTENSION`.

    Returns:
        The files' paths.

    Raises:
        ConfigError: the folder cannot be written into.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (definition, labels) in shown.generated.items():
            for number, label in enumerate(labels):
                safe = name.replace("/", "_")
                file = folder / f"{number:04d}.{safe}.{definition.extension}"
                replace_file(file, encode_label(definition, label))
                written.append(str(file))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from error
    return written


def _titles(names: Sequence[str], variants: int) -> list[str]:
    marks = [f" #{number + 1}" for number in range(variants)] if variants > 1 else [""]
    return [f"{name}{mark}" for name in names for mark in marks]


def _repeated(conditions: Conditions, rows: NDArray[np.int64]) -> Conditions:
    """Rows of conditions; each is a sample of its own, with draws of its own."""
    import torch

    index = torch.from_numpy(rows).to(conditions.sample.device)
    return replace(
        conditions.rows(index), sample=torch.arange(len(rows), device=index.device)
    )  # fmt: skip


def _centre(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "size size 3"]:
    height, width = image.shape[:2]
    crops = crop_settings("", height, width, 1)
    square: UInt8[np.ndarray, "size size 3"]
    (square,) = crop_dense(image, Kind.IMAGE, crops, (height, width), _SQUARE)
    return square


def _square(image: UInt8[np.ndarray, "side side 3"] | None, size: int) -> Any:
    if image is None:
        return np.full((size, size, 3), 255, np.uint8)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
