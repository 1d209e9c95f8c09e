"""How well a tokenizer gives back what it was given, alone and beside what it has to beat."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, NoDecoderError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.base import CropSettings, Tokenizer, TokenizerSpec
from fourmill.tokenize.baselines import PatchCodes, nearest_parts, patch_mean
from fourmill.tokenize.crops import crop_dense
from fourmill.tokenize.masks import MaskTokenizer
from fourmill.tokenize.metrics import (
    aligned_depth,
    better_than,
    code_use,
    measure,
    plane_error,
)
from fourmill.tokenize.perception import Perception, perceived
from fourmill.tokenize.values import to_labels
from fourmill.tokenize.vectors import VectorTokenizer

TOKENS, K_MEANS, PATCH_MEAN = "tokenizer", "k-means", "patch mean"
"""What reconstructions are called."""

_BATCH = 16
_USE = ("codes_used", "perplexity")


@runtime_checkable
class GridTokenizer(Protocol):
    """A tokenizer of what covers a picture: labels to values, values to a grid of ids, and back."""

    spec: TokenizerSpec
    definition: Modality

    def prepare(self, label: Label, crops: CropSettings, image_size: tuple[int, int]) -> Tensor:
        """Values `[K, C, S, S]`, or ids of classes `[K, S, S]`, of a label's crops."""

    def encode(self, inputs: Tensor) -> Tensor:
        """Ids `[B, h, w]` of prepared crops."""

    def decode(self, ids: Tensor) -> Tensor:
        """Values, or logits of classes, `[B, C, S, S]`."""


@dataclass(frozen=True)
class Samples:
    """Labels with what belongs to them, one entry a sample.

    Attributes:
        image_sizes: (height, width) of the stored images.
        crops: as `Tokenizer.tokenize` takes them.
    """

    labels: Sequence[Label]
    crops: Sequence[CropSettings]
    image_sizes: Sequence[tuple[int, int]]
    keys: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """One metric of a tokenizer, and of what it has to beat, where that has it."""

    metric: str
    tokenizer: float
    k_means: float | None = None
    patch_mean: float | None = None

    @property
    def beats(self) -> dict[str, bool]:
        """By the names of the baselines that there are, whether the tokenizer is better."""
        others = {K_MEANS: self.k_means, PATCH_MEAN: self.patch_mean}
        return {
            name: better_than(self.metric, self.tokenizer, each)
            for name, each in others.items()
            if each is not None
        }


@dataclass(frozen=True)
class Comparison:
    """A tokenizer beside its baselines.

    Attributes:
        crops: how many were compared.
        inputs: what was encoded: values, ids of classes, or vectors.
        reconstructions: of all inputs, by `TOKENS`, `K_MEANS`, `PATCH_MEAN`; those that there are.
    """

    metrics: Sequence[Measured]
    crops: int
    inputs: Tensor
    reconstructions: Mapping[str, Tensor] = field(default_factory=dict)


def evaluate(
    tokenizer: GridTokenizer | VectorTokenizer | MaskTokenizer,
    labels: Sequence[Label],
    crops: Sequence[CropSettings],
    image_sizes: Sequence[tuple[int, int]],
    keys: Sequence[str],
) -> dict[str, float]:
    """Reconstruction metrics by the kind of modality (`metrics.measure`), and use of the code book.

    Depth also has `delta1` and `abs_rel`, a plane `abs_error` in its unit. Masks of instances have
    `iou`, the mean over them in the tokenizer's size. A tokenizer without a decoder has
    `codes_used` and `perplexity` alone.

    Args:
        keys: of the samples, as `Tokenizer.tokenize` takes them.

    Raises:
        SampleError: a label of wrong shape, range or type.
    """
    found = compare(tokenizer, Samples(labels, crops, image_sizes, keys))
    return {each.metric: each.tokenizer for each in found.metrics}


def compare(
    tokenizer: GridTokenizer | VectorTokenizer | MaskTokenizer,
    samples: Samples,
    training: Samples | None = None,
    perception: Perception | None = None,
) -> Comparison:
    """Measure a tokenizer on samples, and what it has to beat on the same.

    Args:
        training: what k-means gets its codes from; without it, and of masks of instances, there
            are no baselines.
        perception: for pictures, a network whose view of the differences is measured too.

    Raises:
        ConfigError: no samples.
        SampleError: a label of wrong shape, range or type.
    """
    if not samples.labels:
        raise ConfigError(f"{tokenizer.spec.modality}: no {tokenizer.spec.reads} to judge it on")
    if isinstance(tokenizer, VectorTokenizer):
        return _compare_vectors(tokenizer, samples, training)
    if isinstance(tokenizer, MaskTokenizer):
        return _compare_masks(tokenizer, samples)
    inputs = _prepared(tokenizer, samples)
    tokens = torch.cat([tokenizer.encode(each) for each in torch.split(inputs, _BATCH)])
    use = code_use(tokens, tokenizer.spec.vocab_size)
    try:
        reconstructions = {TOKENS: _decoded(tokenizer, tokens)}
    except NoDecoderError:
        return _table(use, {TOKENS: {}}, inputs, {})
    if training is not None:
        reconstructions |= _baselines(tokenizer, inputs, tokens, training)
    kind = tokenizer.definition.kind
    found = {name: measure(kind, each, inputs) for name, each in reconstructions.items()}
    if kind is Kind.DEPTH:
        depth = _depth(tokenizer.definition, samples, inputs.shape[-1])
        for name, each in reconstructions.items():
            found[name] |= aligned_depth(each, depth)
    if tokenizer.definition.value_range is not None:
        for name, each in reconstructions.items():
            error = plane_error(each, inputs, tokenizer.definition.value_range)
            found[name]["abs_error"] = error
    if kind is Kind.IMAGE and perception is not None:
        for name, distances in perceived(perception, inputs, reconstructions).items():
            found[name] |= distances
    return _table(use, found, inputs, reconstructions)


def as_judged(tokenizer: Tokenizer) -> GridTokenizer | VectorTokenizer | None:
    """The tokenizer itself if there are metrics for tokenizers like it."""
    return tokenizer if isinstance(tokenizer, GridTokenizer | VectorTokenizer) else None


def _prepared(tokenizer: GridTokenizer, samples: Samples) -> Tensor:
    return torch.cat(
        [
            tokenizer.prepare(label, settings, size)
            for label, settings, size in zip(
                samples.labels, samples.crops, samples.image_sizes, strict=True
            )
        ]
    )


def _decoded(tokenizer: GridTokenizer, tokens: Tensor) -> Tensor:
    """Values, or ids of classes: of many classes, logits of all crops would be gigabytes."""
    parts = []
    for each in torch.split(tokens, _BATCH):
        values = tokenizer.decode(each)
        parts.append(values.argmax(1) if tokenizer.definition.kind is Kind.CLASSES else values)
    return torch.cat(parts)


def _baselines(
    tokenizer: GridTokenizer, inputs: Tensor, tokens: Tensor, training: Samples
) -> dict[str, Tensor]:
    patch = inputs.shape[-1] // tokens.shape[-1]
    definition = tokenizer.definition
    num_labels = definition.channels + 1 if definition.kind is Kind.CLASSES else 0
    known = _prepared(tokenizer, training)
    codes = PatchCodes(known, patch, tokenizer.spec.vocab_size, num_labels)
    found = {K_MEANS: codes.reconstruct(inputs)}
    if patch > 1:  # of a single cell, the mean is the cell
        found[PATCH_MEAN] = patch_mean(inputs, patch)
    return found


def _depth(definition: Modality, samples: Samples, side: int) -> list[NDArray[np.float32]]:
    """The labels' own depth of all crops."""
    crops: list[NDArray[np.float32]] = []
    for label, rows, size in zip(samples.labels, samples.crops, samples.image_sizes, strict=True):
        assert isinstance(label, np.ndarray)
        crops.extend(crop_dense(label, definition.kind, rows, size, side).astype(np.float32))
    return crops


def _compare_vectors(
    tokenizer: VectorTokenizer, samples: Samples, training: Samples | None
) -> Comparison:
    inputs = _vectors(tokenizer.definition, samples)
    ids = tokenizer.encode(inputs.numpy())
    reconstructions = {TOKENS: torch.from_numpy(tokenizer.decode(ids))}
    spec = tokenizer.spec
    # a code book each: the share of all their codes, and the mean of what each would need
    books = [code_use(torch.from_numpy(each), spec.vocab_size) for each in ids.T]
    use = {name: float(np.mean([each[name] for each in books])) for name in _USE}
    if training is not None:
        known = _vectors(tokenizer.definition, training)
        parts = nearest_parts(inputs, known, spec.max_tokens, spec.vocab_size)
        reconstructions[K_MEANS] = parts
    found = {
        name: measure(Kind.VECTOR, each, inputs) for name, each in reconstructions.items()
    }  # fmt: skip
    return _table(use, found, inputs, reconstructions)


def _compare_masks(tokenizer: MaskTokenizer, samples: Samples) -> Comparison:
    masks = tokenizer.prepare(samples.labels)
    ids = tokenizer.encode(masks)
    found = tokenizer.decode(ids) > 0.5
    shared, either = (masks & found).sum((1, 2)), (masks | found).sum((1, 2))
    iou = float(np.mean(shared / np.maximum(either, 1)))
    use = code_use(torch.from_numpy(ids), tokenizer.spec.vocab_size)
    inputs, reconstructions = torch.from_numpy(masks), {TOKENS: torch.from_numpy(found)}
    return _table(use, {TOKENS: {"iou": iou}}, inputs, reconstructions)


def _vectors(definition: Modality, samples: Samples) -> Tensor:
    for label in samples.labels:
        check_label(definition, label)
    rows: NDArray[Any] = np.stack([np.asarray(each, np.float32) for each in samples.labels])
    return torch.from_numpy(rows)


def _table(
    use: Mapping[str, float],
    found: Mapping[str, Mapping[str, float]],
    inputs: Tensor,
    reconstructions: Mapping[str, Tensor],
) -> Comparison:
    k_means, patches = found.get(K_MEANS, {}), found.get(PATCH_MEAN, {})
    rows = [
        Measured(name, value, k_means.get(name), patches.get(name))
        for name, value in found[TOKENS].items()
        if not math.isnan(value)  # nothing is known of it: no normals, no known class
    ]
    rows += [Measured(name, value) for name, value in use.items()]
    return Comparison(rows, len(inputs), inputs, reconstructions)


def as_labels(definition: Modality, values: Tensor) -> list[Label]:
    """Labels to look at of a comparison's inputs or reconstructions."""
    if definition.kind is Kind.VECTOR:
        return list(values.numpy())
    if definition.kind is Kind.CLASSES:
        count = max(definition.channels + 1, int(values.max()) + 1)
        values = F.one_hot(values, count).permute(0, 3, 1, 2).float()
    return to_labels(definition, values)
