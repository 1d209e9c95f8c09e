"""What the training of a tokenizer that decodes by diffusion makes small."""

from typing import Any

import torch
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Modality
from fourmill.tokenize.autoencoder import EncoderConfig
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.diffused import DiffusionTokenizer
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.train.tokenizers.config import DiffusionNetwork, TokenizerTrainConfig
from fourmill.train.tokenizers.objectives import Objective, Outcome, grid_fields


class DiffusionObjective(Objective):
    """Noise that is to be removed, given codes."""

    network: DiVAE

    def __init__(self, definition: Modality, config: TokenizerTrainConfig) -> None:
        super().__init__(definition, config)
        shape = config.network
        assert isinstance(shape, DiffusionNetwork)
        fields = shape.model_dump(include={"dim", "encoder_depth", "heads", "latent", "codes"})
        encoder = EncoderConfig(**grid_fields(definition, config), **fields)
        parts: dict[str, Any] = {"encoder": encoder, "diffusion": shape.diffusion}
        if shape.decoder:
            parts[str(shape.decoder.get("kind", "unet"))] = {
                name: value for name, value in shape.decoder.items() if name != "kind"
            }
        try:
            self.network = DiVAE(DiVAEConfig.model_validate(parts))
        except ValueError as error:
            raise ConfigError(f"network: {error}") from error
        self.cap = shape.cap
        self.codes, self.side = encoder.codes, encoder.size

    def forward(self, inputs: Tensor, valid: Tensor | None, seed: int, progress: float) -> Outcome:
        # drawn on the CPU: the same on every device
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
        number = self.network.config.diffusion.steps
        steps = torch.randint(number, (len(inputs),), generator=generator).to(inputs.device)
        loss, latents, tokens = self.network.loss(
            inputs, noise, steps, self.cap, self.config.commitment
        )
        return Outcome(loss, {"denoising": loss.detach()}, tokens, latents)

    def tokenizer(self, network: nn.Module) -> Tokenizer:
        assert isinstance(network, DiVAE)
        config = self.config
        return DiffusionTokenizer(self.definition, config.size, config.patch, network, config.name)
