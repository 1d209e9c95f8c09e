"""How well a tokenizer gives back what it was given, and how it uses its code book."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.base import CropSettings
from fourmill.tokenize.vq import EncoderOnlyTokenizer, VQTokenizer


def evaluate(
    tokenizer: VQTokenizer,
    labels: Sequence[Label],
    crops: Sequence[CropSettings],
    image_sizes: Sequence[tuple[int, int]],
    keys: Sequence[str],
) -> dict[str, float]:
    """Reconstruction errors by the kind of modality, and use of the code book.

    Args:
        keys: of the samples, as `Tokenizer.tokenize` takes them.

    Returns:
        - images and edges: `psnr`, in decibels, the mean over crops;
        - depth: `abs_error`, in deviations of the crop's depth;
        - normals: `mean_degrees` and `median_degrees` between vectors, where they are known;
        - classes: `accuracy`, the share of known pixels;
        - features: `cosine`, the mean over cells;
        - all: `codes_used`, the share of the code book that occurs, and `perplexity`, the number
          of codes that would carry as much if they were used evenly. A tokenizer without a
          decoder has these two alone.

    Raises:
        SampleError: a label of wrong shape, range or type.
    """
    inputs = torch.cat(
        [
            tokenizer.prepare(label, settings, size)
            for label, settings, size, _ in zip(labels, crops, image_sizes, keys, strict=True)
        ]
    )
    tokens = tokenizer.encode(inputs)
    if isinstance(tokenizer, EncoderOnlyTokenizer):
        return code_use(tokens, tokenizer.spec.vocab_size)
    metrics = _METRICS[tokenizer.definition.kind](tokenizer.decode(tokens), inputs)
    return metrics | code_use(tokens, tokenizer.spec.vocab_size)


def code_use(tokens: Int[Tensor, "B h w"], num_codes: int) -> dict[str, float]:
    """`codes_used` and `perplexity`."""
    counts = torch.bincount(tokens.flatten(), minlength=num_codes).double()
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * shares.log()).sum())
    return {"codes_used": len(shares) / num_codes, "perplexity": float(np.exp(entropy))}


def _psnr(decoded: Float[Tensor, "B C S S"], inputs: Float[Tensor, "B C S S"]) -> dict[str, float]:
    squares = (decoded.clamp(-1, 1) - inputs).square().mean(dim=(1, 2, 3)) / 4  # of 0..1
    return {"psnr": float(-10 * squares.clamp(min=1e-10).log10().mean())}


def _depth(decoded: Float[Tensor, "B 1 S S"], inputs: Float[Tensor, "B 1 S S"]) -> dict[str, float]:
    return {"abs_error": float((decoded - inputs).abs().mean())}


def _normals(
    decoded: Float[Tensor, "B 3 S S"], inputs: Float[Tensor, "B 3 S S"]
) -> dict[str, float]:
    is_known = inputs.norm(dim=1) > 0.5
    cosines = F.cosine_similarity(decoded, inputs, dim=1)[is_known]
    degrees = cosines.clamp(-1, 1).acos().rad2deg()
    if not len(degrees):
        return {"mean_degrees": 0.0, "median_degrees": 0.0}
    return {"mean_degrees": float(degrees.mean()), "median_degrees": float(degrees.median())}


def _classes(decoded: Float[Tensor, "B C S S"], inputs: Int[Tensor, "B S S"]) -> dict[str, float]:
    is_known = inputs > 0
    hits = (decoded.argmax(dim=1) == inputs)[is_known]
    return {"accuracy": float(hits.double().mean()) if len(hits) else 0.0}


def _features(
    decoded: Float[Tensor, "B C S S"], inputs: Float[Tensor, "B C S S"]
) -> dict[str, float]:
    return {"cosine": float(F.cosine_similarity(decoded, inputs, dim=1).mean())}


_METRICS: dict[Kind, Callable[[Tensor, Tensor], dict[str, float]]] = {
    Kind.IMAGE: _psnr,
    Kind.EDGE: _psnr,
    Kind.DEPTH: _depth,
    Kind.NORMAL: _normals,
    Kind.CLASSES: _classes,
    Kind.FEATURE_MAP: _features,
}
