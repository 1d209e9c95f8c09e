"""What the training of a tokenizer makes small, by kind of network.

An objective is the network with its losses, as one module whose pass gives the loss, so that it can
be compiled and spread over processes whole.
Shapes: B crops, C channels, S side, h and w tokens, L latent width, G parallel code books.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import PARTS, Kind, Modality
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.initialise import initialise, sure_logits
from fourmill.tokenize.losses import reconstruction_loss, targets_of
from fourmill.tokenize.masks import MaskTokenizer
from fourmill.tokenize.quantize import CosineQuantizer, ScalarQuantizer
from fourmill.tokenize.values import network_inputs
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vq import VQTokenizer
from fourmill.train.tokenizers.config import (
    TokenizerTrainConfig,
    VectorNetwork,
    VQNetwork,
)
from fourmill.train.tokenizers.perceptual import Perceptual

_CLASS_WIDTH = 32  # of the embedding of a class


@dataclass(frozen=True)
class Outcome:
    """Of one pass.

    Attributes:
        loss: whose gradient is taken.
        parts: what it is the sum of, before weights, for the log.
        tokens: `[B, …]` of the batch, all ids of one code book.
        latents: `[B, L, h, w]`, detached, where a code book follows them.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    tokens: Tensor
    latents: Tensor | None = None


class Objective(nn.Module):
    """A network and its losses.

    Attributes:
        network: what is trained, and saved.
        codes: of one code book.
        side: of what the network sees, in pixels or feature cells.
    """

    network: nn.Module
    codes: int
    side: int = 1

    def __init__(self, definition: Modality, config: TokenizerTrainConfig) -> None:
        super().__init__()
        self.definition = definition
        self.config = config

    @abstractmethod
    def forward(self, inputs: Tensor, valid: Tensor | None, seed: int, progress: float) -> Outcome:
        """The loss of a batch.

        Args:
            inputs: as the network takes them.
            valid: bool `[B, S, S]`, pixels that count.
            seed: of what is drawn.
            progress: of the training, 0 to 1.
        """

    def start(self, inputs: Tensor) -> None:
        """Set weights from the first crops, where there is a way to."""

    def follow(self, outcome: Outcome, generator: torch.Generator) -> int:
        """Move a code book that follows the data; how many of its codes were replaced."""
        quantizer = getattr(self.network, "quantize", None)
        if outcome.latents is None or not isinstance(quantizer, CosineQuantizer):
            return 0
        return quantizer.update(
            outcome.latents, outcome.tokens, generator,
            self.config.code_decay, self.config.restart_below,
        )  # fmt: skip

    @abstractmethod
    def tokenizer(self, network: nn.Module) -> Tokenizer:
        """The tokenizer of a network of this kind."""


class VQObjective(Objective):
    """Reconstruction through a code book or a finite scalar quantization."""

    network: VQAutoencoder

    def __init__(self, definition: Modality, config: TokenizerTrainConfig) -> None:
        super().__init__(definition, config)
        shape = config.network
        assert isinstance(shape, VQNetwork)
        fields = shape.model_dump(exclude={"kind", "start"})
        if shape.levels:
            product = int(torch.tensor(shape.levels).prod())
            fields |= {"latent": len(shape.levels), "codes": product}
        self.network = VQAutoencoder(AutoencoderConfig(**grid_fields(definition, config), **fields))
        self.codes, self.side = self.network.config.codes, self.network.config.size
        if config.perceptual and definition.kind is not Kind.IMAGE:
            raise ConfigError(f"{definition.name}: a perceptual loss is for pictures alone")
        self.perceptual = Perceptual(config.perceptual) if config.perceptual else None

    def start(self, inputs: Tensor) -> None:
        shape = self.config.network
        assert isinstance(shape, VQNetwork)
        if shape.start == "data" and not shape.levels:
            initialise(self.network, inputs, self._targets(inputs), self.config.seed)

    def forward(self, inputs: Tensor, valid: Tensor | None, seed: int, progress: float) -> Outcome:
        network = self.network
        latents = network.encode(inputs).float()
        commitment = latents.new_zeros(())
        if isinstance(network.quantize, ScalarQuantizer):
            codes = network.quantize(latents)
            tokens = network.quantize.ids_of(codes.detach())
        else:
            tokens = network.quantize.tokenize(latents)
            found = network.quantize.lookup(tokens)
            commitment = F.mse_loss(F.normalize(latents, dim=1), found) * latents.shape[1]
            unit = F.normalize(latents, dim=1)
            codes = unit + (found - unit).detach()  # straight through
        decoded = network.decode(codes).float()
        parts = {
            "reconstruction": self._reconstruction(decoded, inputs, valid),
            "commitment": commitment,
        }
        loss = parts["reconstruction"] + self.config.commitment * commitment
        if self.perceptual is not None:
            assert self.config.perceptual is not None
            parts["perceptual"] = self.perceptual(decoded, inputs)
            loss = loss + self.config.perceptual.weight * parts["perceptual"]
        return Outcome(loss, parts, tokens, latents.detach())

    def tokenizer(self, network: nn.Module) -> Tokenizer:
        assert isinstance(network, VQAutoencoder)
        config = self.config
        return VQTokenizer(self.definition, config.size, config.patch, network, config.name)

    def _targets(self, inputs: Tensor) -> Tensor:
        """What a linear decoder should give back."""
        return targets_of(self.definition, inputs, self.network.config)

    def _reconstruction(self, decoded: Tensor, inputs: Tensor, valid: Tensor | None) -> Tensor:
        return reconstruction_loss(self.definition, decoded, inputs, _weights(self.config), valid)


class MaskObjective(VQObjective):
    """Masks of instances, 0 to 1, through a code book to logits."""

    def __init__(self, definition: Modality, config: TokenizerTrainConfig) -> None:
        super().__init__(definition, config)
        if config.losses:
            raise ConfigError(f"{definition.name}: masks have no other loss than their own")

    def tokenizer(self, network: nn.Module) -> Tokenizer:
        assert isinstance(network, VQAutoencoder)
        return MaskTokenizer(self.definition, network)

    def _targets(self, inputs: Tensor) -> Tensor:
        return sure_logits(inputs)

    def _reconstruction(self, decoded: Tensor, inputs: Tensor, valid: Tensor | None) -> Tensor:
        return F.binary_cross_entropy_with_logits(decoded, inputs)


class VectorObjective(Objective):
    """Vectors through parallel code books, whose codes are drawn by their probability."""

    network: BottleneckAutoencoder

    def __init__(self, definition: Modality, config: TokenizerTrainConfig) -> None:
        super().__init__(definition, config)
        shape = config.network
        assert isinstance(shape, VectorNetwork)
        self.first, self.last = shape.temperature
        fields = shape.model_dump(exclude={"kind", "temperature"})
        self.network = BottleneckAutoencoder(
            BottleneckConfig(channels=definition.channels, **fields)
        )
        self.codes = shape.codes

    def forward(self, inputs: Tensor, valid: Tensor | None, seed: int, progress: float) -> Outcome:
        vectors = inputs[..., None, None]
        latents = self.network.encode(vectors).float()
        generator = torch.Generator(latents.device).manual_seed(seed)
        temperature = self.first * (self.last / self.first) ** progress
        codes = self.network.quantize(latents, generator, temperature)
        decoded = self.network.decode(codes).float()
        loss = reconstruction_loss(self.definition, decoded, vectors, _weights(self.config))
        tokens = self.network.quantize.tokenize(latents.detach())
        return Outcome(loss, {"reconstruction": loss.detach()}, tokens)

    def tokenizer(self, network: nn.Module) -> Tokenizer:
        assert isinstance(network, BottleneckAutoencoder)
        return VectorTokenizer(self.definition, network, self.config.name)


def make_objective(definition: Modality, config: TokenizerTrainConfig) -> Objective:
    """The objective of a configuration, with fresh weights.

    Raises:
        ConfigError: the modality is not of a kind that the network is for.
    """
    is_vector = definition.kind is Kind.VECTOR
    kind = config.network.kind
    if is_vector is not (kind == "vectors"):
        raise ConfigError(
            f"{definition.name}: found network.kind {kind} for {definition.kind.value}; "
            f"expected {'vectors' if is_vector else 'vq, diffusion or controlled'}"
        )
    if definition.name in PARTS and kind not in ("vectors", "vq"):
        raise ConfigError(
            f"{definition.name}: found network.kind {kind} for masks; expected network.kind vq"
        )
    if kind == "controlled" and definition.kind is not Kind.IMAGE:
        raise ConfigError(
            f"{definition.name}: a diffusion model of pictures draws no {definition.kind.value}; "
            f"expected network.kind vq or diffusion"
        )
    if kind == "diffusion" and definition.kind in (Kind.CLASSES, Kind.FEATURE_MAP):
        raise ConfigError(
            f"{definition.name}: diffusion is for pictures, depth, normals and edges, not for "
            f"{definition.kind.value}; expected network.kind vq"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            if kind == "diffusion":
                from fourmill.train.tokenizers.diffusing import DiffusionObjective

                return DiffusionObjective(definition, config)
            if kind == "controlled":
                from fourmill.train.tokenizers.controlling import ControlledObjective

                return ControlledObjective(definition, config)
            if kind == "vectors":
                return VectorObjective(definition, config)
            chosen = MaskObjective if definition.name in PARTS else VQObjective
            return chosen(definition, config)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"network: {error}") from error


def grid_fields(definition: Modality, config: TokenizerTrainConfig) -> dict[str, Any]:
    """What a network's configuration has from the modality and the size of its crops."""
    return network_inputs(definition, config.size, config.patch, _CLASS_WIDTH)


def _weights(config: TokenizerTrainConfig) -> dict[str, float] | None:
    return {str(name): weight for name, weight in config.losses.items()} if config.losses else None
