"""Sheets of pictures: samples with all their labels, and what tokenizers make of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import NoDecoderError, UnknownNameError
from fourmill.manifests.labels import Label, decode_image
from fourmill.manifests.modalities import Kind, modality
from fourmill.manifests.render import render, sheet
from fourmill.tokenize import registry
from fourmill.tokenize.base import Tokenizer

CELL = 168  # pixels of a picture's side
_CROP = 0  # the centre square

Cell = NDArray[np.uint8]


def pick_rows(
    dataset: Dataset, count: int, split: str | None = None, shards: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """(shard, row) of samples spread evenly over some shards, over a split, or over all."""
    places = [
        (index, row)
        for index in shards or dataset.shard_indices(split)
        for row in range(dataset.shard("rgb", index).record.samples)
    ]
    steps = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return [places[each] for each in steps]


def find_rows(dataset: Dataset, keys: Sequence[str]) -> list[tuple[int, int]]:
    """(shard, row) of samples by key.

    Raises:
        UnknownNameError: no such sample; the nearest key is named.
    """
    known = {
        key: (index, row)
        for index in dataset.shard_indices()
        for row, key in enumerate(dataset.shard("rgb", index).keys)
    }
    for key in keys:
        if key not in known:
            raise UnknownNameError(f"sample in {dataset.url}", key, known)
    return [known[key] for key in keys]


def aligned_sheet(
    dataset: Dataset,
    places: Sequence[tuple[int, int]],
    modalities: Sequence[str],
    tokenizers: Path | None = None,
    cell: int = CELL,
) -> Image.Image:
    """One row a sample, one column a modality; of tokens, the pictures that they stand for."""
    loaded = load_tokenizers(tokenizers, [name for name in modalities if name.startswith("tok_")])
    rows, titles = [], []
    for index, row in places:
        image = _image(dataset, index, row)
        cells = []
        for name in modalities:
            if name == "rgb":
                cells.append(render(modality("rgb"), image, cell))
            elif name in loaded:
                cells.append(_decoded(dataset, loaded[name], name, index, row, cell))
            else:
                shard = dataset.shard(name, index)
                cells.append(render(shard.entry.definition, shard.label(row), cell, image))
        rows.append(cells)
        titles.append(dataset.shard("rgb", index).keys[row])
    columns = [_spoken(name, loaded) for name in modalities]
    return sheet(rows, columns, titles, title=f"{len(rows)} samples of {_short(dataset.url)}")


def reconstruction_sheet(
    dataset: Dataset, places: Sequence[tuple[int, int]], tokenizers: Path, cell: int = CELL
) -> Image.Image:
    """For every image-like tokenizer the centre crop, and below it what its tokens give back."""
    from fourmill.tokenize.crops import crop_dense

    names = [
        each for each in token_modalities(dataset, tokenizers)
        if registry.spec(tokenizers / each).reads in dataset.modalities
    ]  # fmt: skip
    loaded = load_tokenizers(tokenizers, names)
    rows: list[list[Cell]] = []
    titles = []
    for index, row in places:
        image = _image(dataset, index, row)
        crops = dataset.shard("crop_settings", index).array()[row, :1]
        above, below = [], []
        for name, tokenizer in loaded.items():
            definition = modality(tokenizer.spec.reads)
            shard = dataset.shard(definition.name, index)
            label: Label | None = image if definition.name == "rgb" else shard.label(row)
            if label is None:
                above.append(render(definition, None, cell))
                below.append(render(definition, None, cell))
                continue
            assert isinstance(label, np.ndarray)
            size = tokenizer.token_modality.input_size
            stored = _stored_size(dataset, index, row)
            whole = crop_dense(label, definition.kind, crops, stored, size)[0]
            above.append(render(definition, whole, cell))
            below.append(_decoded(dataset, tokenizer, name, index, row, cell, whole))
        rows += [above, below]
        titles += [dataset.shard("rgb", index).keys[row], "from its tokens"]
    columns = [
        f"{each.spec.reads} ({each.spec.max_tokens} of {each.spec.vocab_size})"
        for each in loaded.values()
    ]
    return sheet(rows, columns, titles, title="What tokens keep: crops, and below them the tokens'")


def token_modalities(dataset: Dataset, tokenizers: Path) -> list[str]:
    """Image-like token modalities of a dataset that a folder has tokenizers for, `rgb` first."""
    names = [
        name for name, entry in dataset.modalities.items()
        if entry.definition.kind is Kind.TOKENS and (tokenizers / name / "spec.json").is_file()
        and entry.definition.input_size  # words of instances are no grid
        and modality(registry.spec(tokenizers / name).reads).kind.is_dense
    ]  # fmt: skip
    return sorted(names, key=lambda name: (not name.startswith("tok_rgb"), name))


def load_tokenizers(folder: Path | None, names: Sequence[str]) -> dict[str, Tokenizer]:
    """Those of the names that the folder has."""
    if folder is None:
        return {}
    return {
        name: registry.load(folder / name) for name in names
        if (folder / name / "spec.json").is_file()
    }  # fmt: skip


def _decoded(
    dataset: Dataset,
    tokenizer: Tokenizer,
    name: str,
    index: int,
    row: int,
    cell: int,
    like: NDArray[Any] | None = None,
) -> Cell:
    shard = dataset.shard(name, index)
    definition = modality(tokenizer.spec.reads)
    tokens = shard.label(row)
    if tokens is None:
        return render(definition, None, cell)
    assert isinstance(tokens, np.ndarray)
    crop = tokens[_CROP] if tokens.ndim == 2 else tokens
    try:
        label = tokenizer.detokenize(crop[None])[0]
    except NoDecoderError:  # its tokens can be made, but not shown
        label = None
    return render(definition, label, cell, like=like)


def _image(dataset: Dataset, index: int, row: int) -> NDArray[np.uint8]:
    return decode_image(dataset.shard("rgb", index).payload(row), max_side=512)


def _stored_size(dataset: Dataset, index: int, row: int) -> tuple[int, int]:
    from fourmill.manifests.labels import image_size

    return image_size(dataset.shard("rgb", index).payload(row))


def _spoken(name: str, loaded: dict[str, Any]) -> str:
    if name in loaded:
        return f"{loaded[name].spec.reads} (tokens)"
    return name


def _short(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1]
