"""One vector a sample, predicted from whatever is known of it: what retrieval compares.

4M-21 (Bachmann et al. 2024) predicts the tokens of a global embedding from any of its inputs and
decodes them: whatever two samples were predicted from, their vectors are in one space.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.hashing import sha256_of
from fourmill.manifests.modalities import Kind
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.devices import autocast
from fourmill.train.sampler import Sampler
from fourmill.train.sampling import refuse_not_finite
from fourmill.train.schedules import GenerationStep

ENCODER = "encoder"
"""The feature that is no target: the mean of what the encoder makes of all that is known."""


def possible_features(sampler: Sampler) -> list[str]:
    """Targets that are decoded to vectors first, then those that are decoded to maps of features,
    then the encoder."""
    by_kind: dict[Kind, list[str]] = {Kind.VECTOR: [], Kind.FEATURE_MAP: []}
    for name in sampler.domains.targets:
        if name in sampler.tokenizers and sampler.stored(name).kind in by_kind:
            by_kind[sampler.stored(name).kind].append(name)
    return [*by_kind[Kind.VECTOR], *by_kind[Kind.FEATURE_MAP], ENCODER]


def choose_feature(sampler: Sampler, name: str | None) -> str:
    """The feature of that name: a target of the model, what its tokens encode, or `encoder`.

    Args:
        name: `None` for the model's one target of vectors.

    Raises:
        ConfigError: none is given and there is no such target, or several.
        UnknownNameError: no feature is called so.
    """
    possible = possible_features(sampler)
    if name is None:
        vectors = [
            each for each in possible[:-1] if sampler.stored(each).kind is Kind.VECTOR
        ]  # fmt: skip
        if len(vectors) != 1:
            raise ConfigError(
                f"this model predicts {len(vectors)} global features: choose what is compared with "
                f"--feature: {', '.join(possible)}"
            )
        return vectors[0]
    for each in possible:
        if name == each or (each != ENCODER and name == sampler.stored(each).name):
            return each
    raise UnknownNameError("feature of this model", name, possible)


def features(
    sampler: Sampler, conditions: Conditions, feature: str
) -> Float32[np.ndarray, "batch width"]:
    """Unit vectors of some samples: what is predicted from the conditions, in one step, the
    likeliest tokens; of maps the mean.

    Args:
        feature: one of `possible_features`.

    Raises:
        GenerationError: what the model gives is not finite: damaged weights, or numbers that half
            precision does not hold.
    """
    if feature == ENCODER:
        return _unit(_encoded(sampler, conditions))
    tokens = conditions.tokens.get(feature)
    if tokens is None or bool((tokens < 0).any()):  # what is known needs no prediction
        tokens = sampler.generate(conditions, [GenerationStep(feature, "maskgit")])[feature]
    decoded = np.stack([np.asarray(each, np.float32) for each in sampler.decode(feature, tokens)])
    return _unit(decoded.reshape(*decoded.shape[:2], -1).mean(-1))


def centred(
    vectors: Float32[np.ndarray, "batch width"], mean: Float32[np.ndarray, " width"]
) -> Float32[np.ndarray, "batch width"]:
    """Unit vectors without what all samples have in common.

    What is predicted from depth resembles what else is predicted from depth, whatever it shows;
    without the mean of each kind of input, vectors of several kinds are comparable.
    """
    return _unit(vectors - mean)


def identity(sampler: Sampler, feature: str) -> str:
    """Digest of all that decides what a feature means: the model's weights, wherever they lie and
    on whatever device, and the tokenizer that decodes it.

    Raises:
        ConfigError: there is no such tokenizer.
    """
    parts = {"feature": feature, "model": _digest(sampler.model)}
    if feature != ENCODER:
        if feature not in sampler.tokenizers:
            raise ConfigError(f"{feature}: no tokenizer decodes it; give a folder (--tokenizers)")
        parts["tokenizer"] = sampler.tokenizers.decoding_sha256(feature)
    return sha256_of(parts)


@torch.no_grad()
def _encoded(sampler: Sampler, conditions: Conditions) -> Float32[np.ndarray, "batch dim"]:
    model = sampler.model
    found: list[Tensor] = []
    # before it is projected for the decoder and given its positions again
    hook = model.encoder_norm.register_forward_hook(lambda _, __, output: found.append(output))
    try:
        with autocast(sampler.device, sampler.dtype):
            _, bias = model.encode(select_inputs(model.domains, conditions))
            refuse_not_finite(found[0].isfinite().all(), ENCODER, "features")
    finally:
        hook.remove()
    states = found[0].float()[:, model.shape.registers :]
    weight = torch.ones(states.shape[:2], device=states.device)
    if bias is not None:
        weight = (bias[:, 0, 0, model.shape.registers :] == 0).float()
    mean = (states * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
    return mean.cpu().numpy()


def _unit(vectors: NDArray[np.float32]) -> Float32[np.ndarray, "batch width"]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(length, 1e-12)
    return unit.astype(np.float32)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        digest.update(values.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
