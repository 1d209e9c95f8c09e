"""Tokenizers that decode by a diffusion model of pictures, which a ControlNet leads by the codes.

A large network has learned what pictures look like and stays as it is; a copy of its first half
(ControlNet, Zhang et al. 2023, arXiv:2302.05543) adds what the codes say. So the reference decodes
tokens of RGB with Stable Diffusion.
Shapes: B batch, h and w tokens, S side of a crop.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, NoDecoderError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.autoencoder import EncoderConfig, TokenEncoder
from fourmill.tokenize.base import CONTROLNET, TokenizerSpec
from fourmill.tokenize.diffused import seed_of
from fourmill.tokenize.drawing import Drawing, PictureModel, load_controlnet
from fourmill.tokenize.encoder_only import EncoderOnly
from fourmill.tokenize.vq import VQTokenizer


class ControlledTokenizer(VQTokenizer):
    """Pictures ↔ `tok_<name>@<size>`: tokens as of a `VQTokenizer`, drawn by a diffusion model.

    Many pictures fit the same tokens. Which of them `detokenize` gives is drawn from the tokens
    themselves, as for a `DiffusionTokenizer`. The model is loaded when something is decoded first;
    it is not part of the tokenizer's folder, the ControlNet is.

    Args:
        definition: of the pictures that it encodes.
        network: what makes tokens.
        drawing: what decodes them; a mapping as in `spec.json`, too.
        controlnet: its folder, or itself; without one nothing can be decoded.
        model: what draws, if it is loaded already.
    """

    kind = "controlled"
    what = "a tokenizer that a ControlNet decodes"

    def __init__(
        self,
        definition: Modality,
        size: int,
        patch: int,
        network: TokenEncoder,
        name: str | None = None,
        drawing: Drawing | Mapping[str, Any] | None = None,
        controlnet: Path | nn.Module | None = None,
        model: PictureModel | None = None,
    ) -> None:
        if definition.kind is not Kind.IMAGE or drawing is None:
            raise ConfigError(
                f"{definition.name}: found {definition.kind.value}, drawn by {drawing}; a "
                f"diffusion model draws pictures, and has to be named"
            )
        super().__init__(definition, size, patch, network, name)
        self.drawing = Drawing.model_validate(drawing)
        self.controlnet = controlnet
        chosen = self.drawing.model_dump(mode="json")
        self.spec = replace(self.spec, config=self.spec.config | {"drawing": chosen})
        self._model = model
        self._led: nn.Module | None = None

    @staticmethod
    def of(
        tokenizer: VQTokenizer,
        drawing: Drawing,
        controlnet: Path | nn.Module,
        model: PictureModel | None = None,
    ) -> "ControlledTokenizer":
        """The tokens of a tokenizer, drawn by a diffusion model instead of its own decoder.

        Args:
            controlnet: that was trained on its codes, or its folder.
        """
        network = without_decoder(tokenizer.network)
        config = tokenizer.spec.config
        return ControlledTokenizer(
            tokenizer.definition, config["size"], config["patch"], network, config["name"], drawing,
            controlnet, model,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path, spec: TokenizerSpec) -> "ControlledTokenizer":
        """Read what `save` wrote.

        Raises:
            ConfigError: the weights are not there, or are those of another network.
        """
        loaded = super().load(folder, spec)
        assert isinstance(loaded, ControlledTokenizer)
        loaded.controlnet = folder / CONTROLNET
        return loaded

    @staticmethod
    def make_network(config: Mapping[str, Any]) -> TokenEncoder:
        """A new network, of the configuration that `spec.json` holds."""
        return EncoderOnly(EncoderConfig(**config))

    def save(self, folder: Path) -> None:
        """Write `spec.json`, `model.safetensors`, and the folder of the ControlNet."""
        super().save(folder)
        if isinstance(self.controlnet, Path):
            if self.controlnet != folder / CONTROLNET and self.controlnet.is_dir():
                shutil.copytree(self.controlnet, folder / CONTROLNET, dirs_exist_ok=True)
        elif self.controlnet is not None:
            network: Any = self.controlnet
            network.save_pretrained(folder / CONTROLNET)

    def at_size(self, size: int) -> "ControlledTokenizer":
        """As of a `VQTokenizer`; the picture that is drawn has the same side."""
        again = super().at_size(size)
        assert isinstance(again, ControlledTokenizer)
        again.controlnet = self.controlnet
        return again

    def drawn_by(self, drawing: Drawing) -> "ControlledTokenizer":
        """The same tokenizer with another way to decode; its tokens are the same."""
        if self.controlnet is None:
            raise self._no_controlnet()
        return ControlledTokenizer.of(self, drawing, self.controlnet)

    @torch.inference_mode()
    def decode_with(
        self, ids: Int[Tensor, "B h w"], seeds: Sequence[int]
    ) -> Float[Tensor, "B 3 S S"]:
        """As `decode`, with seeds of one's own: other seeds give other pictures of the tokens.

        Raises:
            ConfigError: an id that is not in the code book, seeds that are not one a sample, or a
                model that does not fit.
            MissingPackageError: there is no `diffusers`, or the model is not here.
            NoDecoderError: there is no ControlNet.
        """
        self._refuse_other_ids(ids)
        codes = self.network.quantize.lookup(ids.to(self.device))
        model, controlnet = self._drawers()
        size = self.spec.config["size"]
        pictures = model.draw(controlnet, codes, seeds).cpu()
        return F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)

    def to(self, device: str) -> "ControlledTokenizer":
        """Move the network; the diffusion model follows when it is needed."""
        super().to(device)
        return self

    def _decoded(self, ids: Int[Tensor, "B h w"]) -> Float[Tensor, "B C S S"]:
        return self.decode_with(ids, [seed_of(each) for each in ids])

    def _drawers(self) -> tuple[PictureModel, nn.Module]:
        """What draws, and what leads it, where the network is."""
        if self.controlnet is None or (
            isinstance(self.controlnet, Path) and not self.controlnet.is_dir()
        ):
            raise self._no_controlnet()
        if self._model is None:
            self._model = PictureModel(self.drawing)
        if self._led is None:
            latent = self.network.shape.latent
            self._led = (
                load_controlnet(self.controlnet, self._model, latent)
                if isinstance(self.controlnet, Path)
                else self.controlnet.eval().requires_grad_(False)
            )
        return self._model.to(self.device), self._led.to(self.device)

    def _no_controlnet(self) -> NoDecoderError:
        return NoDecoderError(
            f"{self.spec.modality}: it has no ControlNet, so that its tokens cannot be decoded"
        )


def without_decoder(network: TokenEncoder) -> EncoderOnly:
    """The half of a network that makes tokens, with its weights."""
    fields = EncoderConfig.model_fields.keys()
    half = EncoderOnly(EncoderConfig(**network.shape.model_dump(include=set(fields))))
    state = network.state_dict()
    half.load_state_dict({name: state[name] for name in half.state_dict()})
    return half.to(next(network.parameters()).device)
