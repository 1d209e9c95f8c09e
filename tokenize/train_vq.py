"""Train a VQ tokenizer on a few hundred labels, in seconds on a CPU or longer for more.

The start is taken from the data (`initialise`): principal components, k-means, and a decoder that
is linear in the codes around a token. By default gradient steps then train the decoder alone: in
a hundred steps the encoder would unlearn more than it gains. With `train_encoder` all is trained,
and the code book follows by moving averages. Same labels, configuration and thread count give the
same bytes.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Modality
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.base import TokenizerSpec
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.evaluate import evaluate
from fourmill.tokenize.folders import whole_folder
from fourmill.tokenize.initialise import initialise
from fourmill.tokenize.losses import reconstruction_loss, targets_of
from fourmill.tokenize.quantize import CosineQuantizer
from fourmill.tokenize.values import cut, network_inputs, refuse_other_kinds, to_tensor
from fourmill.tokenize.vq import VQTokenizer

OnProgress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

_MOST_CLASS_WIDTH = 32  # of the embedding of a class; as many as there are, so that all differ
_NUM_EVALUATED = 64  # labels whose reconstruction is measured at the end
_NUM_START_VALUES = 2**26  # in the crops that the start is taken from, 256 MiB


class VQTrainConfig(BaseModel):
    """How a tokenizer is trained; the defaults are for a CPU and some twenty seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=128, ge=4, multiple_of=4, description="width of the transformers")
    encoder_depth: int = Field(default=0, ge=0, description="blocks of the encoder")
    decoder_depth: int = Field(default=1, ge=0, description="blocks of the decoder")
    heads: int = Field(default=4, ge=1, description="attention heads; divides dim")
    reach: int = Field(
        default=1, ge=0, description="tokens around each that its decoding starts from"
    )
    latent: int = Field(default=32, ge=2, description="width of the codes")
    train_encoder: bool = Field(
        default=False, description="train encoder and code book too, which takes thousands of steps"
    )
    steps: int = Field(
        default=150, ge=0, description="gradient steps; 0 keeps the start from the data"
    )
    batch_size: int = Field(default=8, ge=1, description="crops in a step")
    lr: float = Field(
        default=2e-3, gt=0, description="peak learning rate; a tenth warms up, then a cosine"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW, on matrices")
    commitment: float = Field(
        default=4.0,
        ge=0,
        description="weight of what keeps latents near codes, if the encoder is trained",
    )
    max_samples: int = Field(default=2000, ge=1, description="labels used, the first ones")
    num_crops: int = Field(default=2, ge=1, description="crops of each label")
    min_crop_scale: float = Field(
        default=0.4, gt=0, le=1, description="least share of the image in a crop"
    )
    seed: int = Field(default=0, ge=0, description="of crops, start and batches")
    losses: dict[str, float] | None = Field(
        default=None, description="weights of l1, l2, smooth_l1, cross_entropy, cosine; by kind"
    )


def train_tokenizer(
    definition: Modality,
    size: int,
    patch: int,
    vocab_size: int,
    config: VQTrainConfig,
    labels: Sequence[Label],
    image_sizes: Sequence[tuple[int, int]],
    keys: Sequence[str],
    folder: Path,
    on_progress: OnProgress | None = None,
) -> TokenizerSpec:
    """Train a tokenizer of one dense modality, and write its folder when it is done.

    Beside the tokenizer the folder holds `training.json`: configuration, losses, and how well it
    gives back the first labels.

    Args:
        size: side of a crop in pixels.
        patch: side of a token in pixels.
        vocab_size: codes.
        image_sizes: (height, width) of the stored images that the labels are of.

    Raises:
        ConfigError: not a dense modality, or no labels.
        SampleError: a label of wrong shape, range or type.
        TrainingError: the loss is not finite.
    """
    refuse_other_kinds(definition)
    if not labels:
        raise ConfigError(f"{definition.name}: no labels to train a tokenizer on")
    started = time.perf_counter()
    used = slice(config.max_samples)
    labels, image_sizes, keys = labels[used], image_sizes[used], keys[used]
    crops = [
        crop_settings(key, *image_size, config.num_crops, config.seed, config.min_crop_scale)
        for key, image_size in zip(keys, image_sizes, strict=True)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = VQAutoencoder(_network_config(definition, size, patch, vocab_size, config))
    data = np.concatenate(
        [
            cut(definition, label, rows, image_size, network.config.size)
            for label, rows, image_size in zip(labels, crops, image_sizes, strict=True)
        ]
    )
    losses = _fit(network, definition, data, config, on_progress)
    tokenizer = VQTokenizer(definition, size, patch, network)
    few = slice(_NUM_EVALUATED)
    metrics = evaluate(tokenizer, labels[few], crops[few], image_sizes[few], keys[few])
    record = {
        "config": config.model_dump(),
        "samples": len(labels),
        "losses": losses,
        "metrics": metrics,
        "seconds": round(time.perf_counter() - started, 1),
    }
    with whole_folder(folder) as aside:
        tokenizer.save(aside)
        (aside / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return tokenizer.spec


def _network_config(
    definition: Modality, size: int, patch: int, vocab_size: int, config: VQTrainConfig
) -> AutoencoderConfig:
    if size % patch:
        raise ConfigError(f"{definition.name}: size {size} is not a multiple of patch {patch}")
    class_width = min(definition.channels + 1, _MOST_CLASS_WIDTH)
    seen = network_inputs(definition, size, patch, class_width)
    shared = {"dim", "encoder_depth", "decoder_depth", "heads", "latent", "reach"}
    return AutoencoderConfig(**seen, codes=vocab_size, **config.model_dump(include=shared))


def _fit(
    network: VQAutoencoder,
    definition: Modality,
    data: NDArray[np.generic],
    config: VQTrainConfig,
    on_progress: OnProgress | None,
) -> list[float]:
    """Train in place; the losses of all steps."""
    generator = torch.Generator().manual_seed(config.seed)
    count = max(1, _NUM_START_VALUES // (network.config.outputs * network.config.size**2))
    first = torch.randperm(len(data), generator=generator)[:count]
    inputs = to_tensor(definition, data[first.numpy()])
    initialise(network, inputs, targets_of(definition, inputs, network.config), config.seed)
    if not config.train_encoder:
        network.encoder.requires_grad_(False)
        network.quant_proj.requires_grad_(False)
    trained = [each for each in network.parameters() if each.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim > 1]},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, max(config.steps, 1) + 1, pct_start=0.1, cycle_momentum=False
    )
    losses = []
    for step in range(config.steps):
        picks = torch.randint(len(data), (config.batch_size,), generator=generator)
        inputs = to_tensor(definition, data[picks.numpy()])
        loss, latents, tokens = _loss(network, definition, inputs, config)
        if not torch.isfinite(loss):
            raise TrainingError(f"tokenizer of {definition.name}: loss {loss} at step {step}")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if config.train_encoder and isinstance(network.quantize, CosineQuantizer):
            network.quantize.update(latents, tokens, generator)
        losses.append(round(loss.item(), 5))
        if on_progress:
            on_progress(step + 1, config.steps, losses[-1])
    return losses


def _loss(
    network: VQAutoencoder, definition: Modality, inputs: Tensor, config: VQTrainConfig
) -> tuple[Float[Tensor, ""], Float[Tensor, "B L h w"], Int[Tensor, "B h w"]]:
    """The loss, and what moves the code book: latents and their tokens."""
    latents = network.encode(inputs)
    tokens = network.quantize.tokenize(latents)
    codes = network.quantize.lookup(tokens)
    decoded = network.decode(latents + (codes - latents).detach())  # straight through
    loss = reconstruction_loss(definition, decoded, inputs, config.losses)
    if config.train_encoder:
        loss = loss + config.commitment * F.mse_loss(latents, codes) * latents.shape[1]
    return loss, latents.detach(), tokens
