"""What the training of a ControlNet makes small, which leads a diffusion model by codes."""

import torch
from torch import Tensor, nn

from fourmill.manifests import configs
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Modality
from fourmill.tokenize import registry
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.controlled import ControlledTokenizer
from fourmill.tokenize.drawing import Drawing, PictureModel, load_controlnet, new_controlnet
from fourmill.tokenize.vq import VQTokenizer
from fourmill.train.tokenizers.config import ControlledNetwork, TokenizerTrainConfig
from fourmill.train.tokenizers.objectives import Objective, Outcome


class ControlledObjective(Objective):
    """Noise that is to be removed from latents of pictures, given codes that stay as they are."""

    def __init__(self, definition: Modality, config: TokenizerTrainConfig) -> None:
        super().__init__(definition, config)
        shape = config.network
        assert isinstance(shape, ControlledNetwork)
        self.drawing = configs.validate(Drawing, shape.drawing, "network", "drawing")
        self._tokenizer = _tokenizer_of(shape, definition, config)
        self.model = PictureModel(self.drawing)
        self.coder = self._tokenizer.network
        latent = self.coder.shape.latent
        self.network = (
            load_controlnet(shape.controlnet, self.model, latent).requires_grad_(True)
            if shape.controlnet
            else new_controlnet(self.model, latent)
        )
        self.codes, self.side = self._tokenizer.spec.vocab_size, self._tokenizer.side

    def forward(self, inputs: Tensor, valid: Tensor | None, seed: int, progress: float) -> Outcome:
        with torch.no_grad():
            tokens = self.coder.tokenize(inputs)
            codes = self.coder.quantize.lookup(tokens)
        generator = torch.Generator().manual_seed(seed)
        loss = self.model.loss(self.network, inputs, codes, generator)
        return Outcome(loss, {"denoising": loss.detach()}, tokens)

    def tokenizer(self, network: nn.Module) -> Tokenizer:
        return ControlledTokenizer.of(self._tokenizer, self.drawing, network, self.model)


def _tokenizer_of(
    shape: ControlledNetwork, definition: Modality, config: TokenizerTrainConfig
) -> VQTokenizer:
    """What makes the tokens.

    Raises:
        ConfigError: it is not one of such tokens.
    """
    tokenizer = registry.load(shape.tokenizer)
    name = f"tok_{config.name or definition.name}@{config.size}"
    if (
        not isinstance(tokenizer, VQTokenizer)
        or (tokenizer.spec.modality, tokenizer.spec.reads) != (name, definition.name)
        or tokenizer.spec.config["patch"] != config.patch
    ):
        raise ConfigError(
            f"{shape.tokenizer}: found a tokenizer of {tokenizer.spec.reads} for "
            f"{tokenizer.spec.modality}, expected one of {definition.name} for {name} with patches "
            f"of {config.patch}"
        )
    return tokenizer
