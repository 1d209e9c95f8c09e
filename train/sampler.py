"""A trained 4M with the tokenizers of its modalities: labels in, labels out.

What lies between a photograph, a sentence or a depth map and the model, and between its tokens and
what people look at, belongs to tokenizers; this file finds the right one of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from fourmill.manifests.errors import ConfigError, SampleError, UnknownNameError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Masking, Modality, modality
from fourmill.tokenize.base import SPEC_FILE, Tokenizer
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.tokenize.networks import NetworkTokenizer
from fourmill.tokenize.registry import decoding_sha256
from fourmill.tokenize.registry import load as load_tokenizer
from fourmill.tokenize.registry import spec as tokenizer_spec
from fourmill.train import runs
from fourmill.train.config import load_train_config
from fourmill.train.devices import autocast, choose_device, choose_dtype
from fourmill.train.domains import CONTINUOUS, Domains, meanings
from fourmill.train.generate import Conditions, generate
from fourmill.train.model import FourM
from fourmill.train.published import Which, open_published
from fourmill.train.schedules import GenerationStep

_UNKNOWN = -1


class TokenizerFolder(Mapping[str, Tokenizer]):
    """The tokenizers of a folder by the modalities of a model, each loaded when it is asked for.

    A grid that has none of its own gets the one of the same name at the nearest other size:
    `tok_rgb@224` makes and decodes `tok_rgb@448` too.

    Args:
        folder: a tokenizer a folder, named as the tokens' modality; published models, which call
            tokens of text as the text, find `tok_caption` as `caption`. `None` for none at all.
        device: where their networks are.
    """

    def __init__(self, folder: Path | None, domains: Domains, device: torch.device) -> None:
        self._domains, self._device = domains, device
        self._places: dict[str, Path] = {}
        self._resized: set[str] = set()
        self._loaded: dict[str, Tokenizer] = {}
        for each in domains.modalities:
            if folder is None or each.masking in CONTINUOUS:
                continue
            places = (folder / each.name, folder / f"tok_{each.name}")
            found = next((place for place in places if place.exists()), None)
            if found is None and (found := _of_another_size(folder, each)) is not None:
                self._resized.add(each.name)
            if found is not None:
                self._places[each.name] = found

    def __getitem__(self, name: str) -> Tokenizer:
        """The tokenizer of a modality.

        Raises:
            ConfigError: it is damaged, or of another vocabulary or size than the model's tokens.
        """
        if name not in self._loaded:
            place, wanted = self._places[name], self._domains.modality(name)
            loaded = load_tokenizer(place, wanted.input_size if name in self._resized else None)
            spec = loaded.spec
            is_grid = wanted.masking is Masking.IMAGE
            if spec.vocab_size != wanted.vocab_size or (
                is_grid and spec.max_tokens != wanted.max_tokens
            ):
                raise ConfigError(
                    f"{place}: makes {spec.max_tokens} tokens of {spec.vocab_size} ids, and the "
                    f"model's {name} is {wanted.max_tokens} of {wanted.vocab_size}: give the "
                    f"tokenizers that it was trained with (--tokenizers)"
                )
            if isinstance(loaded, NetworkTokenizer):
                loaded.to(str(self._device))
            self._loaded[name] = loaded
        return self._loaded[name]

    def decoding_sha256(self, name: str) -> str:
        """Digest of the tokenizer's files, see `registry.decoding_sha256`."""
        return decoding_sha256(self._places[name])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _of_another_size(folder: Path, wanted: Modality) -> Path | None:
    """The tokenizer of the same name, vocabulary and patches at the nearest other size."""
    base, at, _ = wanted.name.partition("@")
    if wanted.masking is not Masking.IMAGE or not at:
        return None
    sizes: dict[int, Path] = {}
    for place in folder.iterdir():
        name, _, size = place.name.partition("@")
        if name == base and size.isdecimal() and _has_patches(place, wanted):
            sizes[int(size)] = place
    # the nearest: fewest of its positions are made up
    nearest = min(sizes, key=lambda size: (abs(size - wanted.input_size), size), default=None)
    return None if nearest is None else sizes[nearest]


def _has_patches(place: Path, wanted: Modality) -> bool:
    if not (place / SPEC_FILE).is_file():
        return True  # published: what it is shows when it is loaded
    spec = tokenizer_spec(place)
    return (spec.vocab_size, spec.config.get("patch")) == (wanted.vocab_size, wanted.patch_size)


@dataclass(frozen=True)
class Sampler:
    """Generates any modality of samples from any others.

    Modalities are named as the model does (`tok_depth@224`), or as what their tokens encode
    (`depth`, `caption`, `rgb`).

    Attributes:
        tokenizers: by the model's modalities; those without one are given and returned as tokens.
    """

    model: FourM
    tokenizers: TokenizerFolder
    device: torch.device
    dtype: torch.dtype

    @staticmethod
    def load(
        where: str | Path,
        tokenizers: Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        weights: Which = "model",
    ) -> "Sampler":
        """A model with its tokenizers.

        Args:
            where: what `load_published` takes (a run's folder, a checkpoint, a safetensors file, a
                hub's id), or the YAML file that a run was trained with.
            tokenizers: a tokenizer a folder; by default those that the run was made with.

        Raises:
            ConfigError: no model there, or a folder of tokenizers that is not.
            MissingPackageError: an id that is not on this machine and cannot be fetched.
        """
        if tokenizers is not None and not tokenizers.is_dir():
            raise ConfigError(f"{tokenizers}: no such folder of tokenizers; give --tokenizers")
        opened = open_published(run_folder(where), weights)
        folder = tokenizers or _tokenizers_of(opened.file)
        chosen = choose_device(device)
        model = opened.load().to(chosen).eval()
        found = TokenizerFolder(folder, model.domains, chosen)
        return Sampler(model, found, chosen, choose_dtype(dtype, chosen))

    @property
    def domains(self) -> Domains:
        """The modalities of the model."""
        return self.model.domains

    def resolve(self, name: str, target: bool = False) -> str:
        """What the model calls a modality: of several sizes the smallest, pixels before tokens.

        Args:
            target: whether it is to be predicted.

        Raises:
            UnknownNameError: the model has no such input or target; the message says which it has.
        """
        domains = self.domains
        possible = domains.targets if target else domains.inputs
        if name in possible:
            return name
        found = [each for each in possible if name in meanings(domains.modality(each))]
        if found:
            return min(found, key=lambda each: _preference(domains.modality(each)))
        known = {*possible, *(n for each in possible for n in meanings(domains.modality(each)))}
        role = "target" if target else "input"
        raise UnknownNameError(f"{role} of this model", name, sorted(known))

    def stored(self, name: str) -> Modality:
        """The definition of what `decode` returns: of `depth` for `tok_depth@224`; of the tokens
        where no tokenizer is at hand."""
        if name in self.tokenizers:
            return modality(self.tokenizers[name].spec.reads)
        return self.domains.modality(name)

    def conditions(
        self,
        samples: int,
        given: Mapping[str, Sequence[Label | None]],
        numbers: Sequence[int] | None = None,
    ) -> Conditions:
        """Labels of some samples as the model takes them: the centre squares of what is dense.

        Args:
            given: by modality a label a sample, `None` where it has none: pictures as uint8
                `[H, W, 3]`, others as `manifests.labels` has them, tokens as arrays `[tokens]`.
            numbers: of the samples, which draws are keyed by; by default 0, 1, 2, ….

        Raises:
            UnknownNameError: a modality that is no input of the model.
            ConfigError: one that is given twice or needs a tokenizer that is not there, an empty
                text, another number of labels than of samples, pixels that a sample lacks.
            SampleError: a label of wrong type, shape or range.
        """
        keys = list(range(samples)) if numbers is None else list(numbers)
        if len(keys) != samples:
            raise ConfigError(f"{len(keys)} numbers for {samples} samples")
        crops, sizes = _centre_crops(samples, given)
        tokens: dict[str, Tensor] = {}
        pixels: dict[str, Tensor] = {}
        for name, labels in given.items():
            chosen = self.resolve(name)
            if chosen in tokens or chosen in pixels:
                raise ConfigError(f"{name}: the model's {chosen} is given twice; give it once")
            if len(labels) != samples:
                raise ConfigError(f"{name}: {len(labels)} labels for {samples} samples")
            definition = self.domains.modality(chosen)
            if definition.masking is Masking.PIXELS:
                images = _pixels(name, definition, labels, crops, sizes)
                pixels[chosen] = torch.from_numpy(images).to(self.device)
            else:
                ids = self._tokens(name, chosen, labels, crops, sizes, keys)
                tokens[chosen] = torch.from_numpy(ids).to(self.device)
        sample = torch.tensor(keys, dtype=torch.int64, device=self.device)
        return Conditions(sample, tokens, pixels)

    def generate(
        self, conditions: Conditions, plan: Sequence[GenerationStep], seed: int = 0
    ) -> dict[str, Int64[Tensor, "batch length"]]:
        """The tokens of a plan's targets; see `generate.generate`."""
        with autocast(self.device, self.dtype):
            return generate(self.model, conditions, plan, seed)

    def decode(self, name: str, tokens: Tensor | NDArray[np.integer[Any]]) -> list[Label]:
        """Labels of `[B, tokens]` of a modality of the model, see `stored`."""
        array = tokens.cpu().numpy() if isinstance(tokens, Tensor) else tokens
        if name not in self.tokenizers:
            return list(array)
        return self.tokenizers[name].detokenize(array)

    def _tokens(
        self,
        name: str,
        chosen: str,
        labels: Sequence[Label | None],
        crops: Sequence[Int64[np.ndarray, "1 5"]],
        sizes: Sequence[tuple[int, int]],
        keys: Sequence[int],
    ) -> Int64[np.ndarray, "batch length"]:
        definition = self.domains.modality(chosen)
        ids = np.full((len(labels), definition.max_tokens), _UNKNOWN, np.int64)
        there = [row for row, label in enumerate(labels) if label is not None]
        if not there:
            return ids
        present = [label for label in labels if label is not None]
        if all(_are_tokens(label, definition) for label in present):
            ids[there] = _whole(name, definition, present)
            return ids
        if chosen not in self.tokenizers:
            raise ConfigError(
                f"{name}: no tokenizer for {chosen} is at hand; give a folder that has one "
                f"(--tokenizers), or tokens"
            )
        tokenizer = self.tokenizers[chosen]
        stored = modality(tokenizer.spec.reads)
        for label in present:
            if stored.kind is Kind.TEXT and isinstance(label, str) and not label.strip():
                raise ConfigError(f"{name}: an empty text says nothing; leave it out, or write one")
            check_label(stored, label)
        found = tokenizer.tokenize(
            present,
            [crops[row] for row in there],
            [sizes[row] for row in there],
            [str(keys[row]) for row in there],
        )
        ids[there] = found[:, 0] if found.ndim == 3 else found
        return ids


def run_folder(where: str | Path) -> str | Path:
    """The folder of the run that a YAML file describes; anything else as it is."""
    path = Path(where)
    if path.suffix in (".yaml", ".yml"):
        return load_train_config(path).out
    return where


def _tokenizers_of(weights: Path) -> Path | None:
    """The tokenizers of the run in whose folder a file of weights lies; `None` without a run."""
    for folder in weights.resolve().parents[:3]:
        run = runs.read_run(folder)
        if run is not None:
            return run.config.tokenizers if run.config.tokenizers.is_dir() else None
    return None


def _preference(definition: Modality) -> tuple[bool, int, str]:
    return definition.masking is not Masking.PIXELS, definition.input_size, definition.name


def _centre_crops(
    samples: int, given: Mapping[str, Sequence[Label | None]]
) -> tuple[list[Int64[np.ndarray, "1 5"]], list[tuple[int, int]]]:
    """The centre square of each sample, and the size of its picture: of `rgb` if it is given, else
    of any map of the picture, else a square."""
    sizes = []
    for row in range(samples):
        first = sorted(given.items(), key=lambda each: not each[0].startswith("rgb"))
        labels = [each[row] for _, each in first if len(each) > row]
        planes = [each for each in labels if isinstance(each, np.ndarray) and each.ndim >= 2]
        size = (256, 256)
        if planes:  # features alone have their channels first
            is_map = planes[0].dtype == np.float16 and planes[0].ndim == 3
            size = planes[0].shape[-2:] if is_map else planes[0].shape[:2]
        sizes.append((int(size[0]), int(size[1])))
    crops = [crop_settings(str(row), *size, 1) for row, size in enumerate(sizes)]
    return crops, sizes


def _pixels(
    name: str,
    definition: Modality,
    labels: Sequence[Label | None],
    crops: Sequence[Int64[np.ndarray, "1 5"]],
    sizes: Sequence[tuple[int, int]],
) -> UInt8[np.ndarray, "batch size size 3"]:
    images = []
    for label, crop, size in zip(labels, crops, sizes, strict=True):
        if label is None:
            raise ConfigError(f"{name}: a sample has no picture, which {definition.name} needs")
        if not isinstance(label, np.ndarray):
            raise SampleError(name, f"expected a picture, found {type(label).__name__}")
        check_label(modality("rgb"), label)
        images.append(crop_dense(label, Kind.IMAGE, crop, size, definition.input_size)[0])
    return np.stack(images)


def _are_tokens(label: Label, definition: Modality) -> bool:
    """Whether a label is tokens already: one number a place, where the stored label is no vector
    of whole numbers."""
    return (
        isinstance(label, np.ndarray)
        and label.ndim == 1
        and np.issubdtype(label.dtype, np.integer)
        and definition.masking is not Masking.PIXELS
    )


def _whole(
    name: str, definition: Modality, labels: Sequence[Label]
) -> Int64[np.ndarray, "batch length"]:
    rows = np.zeros((len(labels), definition.max_tokens), np.int64)
    for row, label in zip(rows, labels, strict=True):
        ids = np.asarray(label)
        is_grid = definition.masking is Masking.IMAGE
        low = _UNKNOWN if is_grid else 0
        if len(ids) > len(row) or (is_grid and len(ids) != len(row)):
            most = "" if is_grid else "up to "
            raise SampleError(name, f"{len(ids)} tokens, expected {most}{len(row)}")
        if ids.size and not (low <= ids.min() and ids.max() < definition.vocab_size):
            raise SampleError(
                name,
                f"tokens from {ids.min()} to {ids.max()}, expected {low} to "
                f"{definition.vocab_size - 1}",
            )
        row[: len(ids)] = ids
    return rows
