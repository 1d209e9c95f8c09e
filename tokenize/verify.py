"""Whether tokens say what was tokenized: a random few are decoded again, and compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.errors import MissingPackageError, NoDecoderError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.base import CropSettings, Tokenizer
from fourmill.tokenize.draws import uniforms
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vq import VQTokenizer

_SHARE = 1 / 64  # of the samples that are decoded again
_SHARE_OF_SLOW = 1 / 1024  # where decoding takes many passes


def reconstruction_errors(
    tokenizer: Tokenizer,
    labels: Sequence[Label],
    crops: Sequence[CropSettings],
    image_sizes: Sequence[tuple[int, int]],
    keys: Sequence[str],
    tokens: NDArray[np.integer[Any]],
) -> dict[int, float]:
    """How far a few labels of a batch, drawn by their keys, are from what their tokens decode to.

    Of classes it is the share of places that are wrong; of features and vectors one less the
    cosine; of all else the mean square of differences in the units of the network (-1..1; depth in
    deviations).

    Args:
        tokens: `[B, crops, tokens]`, or `[B, tokens]`, of the labels.

    Returns:
        By row, the mean over its crops (of the first alone, where decoding is slow); nothing where
        a tokenizer has no measure, no decoder, not the packages that decoding needs, or decodes by
        a model of gigabytes that tokens need not be made with.
    """
    if tokenizer.spec.kind == "controlled":
        return {}
    is_slow = tokenizer.spec.kind == "diffusion"
    share = _SHARE_OF_SLOW if is_slow else _SHARE
    rows = [row for row, key in enumerate(keys) if uniforms(1, "decoded again", key)[0] < share]
    if not rows or not isinstance(tokenizer, VQTokenizer | VectorTokenizer):
        return {}
    try:
        if isinstance(tokenizer, VectorTokenizer):
            given = torch.from_numpy(np.stack([np.asarray(labels[row]) for row in rows]))
            found = torch.from_numpy(tokenizer.decode(tokens[rows].astype(np.int64)))
            errors = 1 - F.cosine_similarity(given, found, dim=1)
        else:
            shown = 1 if is_slow else tokens.shape[1]
            parts = [
                tokenizer.prepare(labels[row], crops[row][:shown], image_sizes[row]) for row in rows
            ]
            errors = _grid_errors(tokenizer, parts, tokens[rows, :shown])
    except (MissingPackageError, NoDecoderError):  # tokens are made all the same
        return {}
    return {row: float(each) for row, each in zip(rows, errors, strict=True)}


def _grid_errors(
    tokenizer: VQTokenizer, parts: Sequence[Tensor], tokens: NDArray[np.integer[Any]]
) -> Tensor:
    """Of each label, all crops of all labels decoded together."""
    side = int(tokens.shape[-1] ** 0.5)
    ids = torch.from_numpy(tokens.astype(np.int64)).reshape(-1, side, side)
    decoded, given = tokenizer.decode(ids), torch.cat(list(parts))
    kind = tokenizer.definition.kind
    if kind is Kind.CLASSES:
        distances = (decoded.argmax(dim=1) != given).float()
    elif kind is Kind.FEATURE_MAP:
        distances = 1 - F.cosine_similarity(decoded, given, dim=1)
    else:
        distances = (decoded - given).square()
    return distances.reshape(len(parts), -1).mean(dim=1)
