"""A frozen diffusion model of pictures, and the ControlNet that leads it by codes.

All of it is in the folders of diffusers: `unet`, `vae`, `scheduler`, `text_encoder` and `tokenizer`
of the model, and a folder of the ControlNet.
Shapes: B batch, L latent width, h and w tokens, S side of a crop, P pixels of a picture's side.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.hub import HubWeights
from fourmill.tokenize.diffusion import Denoiser, Diffusion, DiffusionConfig, Sampling
from fourmill.tokenize.unet import Count

_FOLDERS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")


class Drawing(BaseModel):
    """What draws pictures, and how; part of what decides their bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="a diffusion model in diffusers' folders, such as Stable Diffusion 1.5: "
        "`<org>/<name>` of a hub, or a folder"
    )
    revision: str | None = Field(default=None, description="commit of the hub's repository")
    side: Count = Field(
        default=512,
        description="pixels of a side that it draws, best those that it was trained on; pictures "
        "are then brought to the size of the crop",
    )
    guidance: float = Field(
        default=1.0,
        ge=0,
        description="how much further than without codes; 1 takes the model at its word, which "
        "costs one pass a step and not two",
    )
    sampling: Sampling = Field(
        default=Sampling(at_once=1), description="how noise becomes latents of a picture"
    )

    def folder(self) -> Path:
        """Where the model lies, fetched if need be.

        Raises:
            MissingPackageError: it is not here and cannot be fetched.
        """
        place = Path(self.model)
        return place if place.is_dir() else HubWeights(self.model, self.revision, _FOLDERS).folder()


class PictureModel(nn.Module):
    """A frozen diffusion model of pictures, led by codes through a ControlNet.

    Raises:
        ConfigError: a part is missing or damaged, or the side does not fit.
        MissingPackageError: there is no `diffusers`, or the model is not here.
    """

    prompt: Tensor

    def __init__(self, drawing: Drawing) -> None:
        super().__init__()
        folder = drawing.folder()
        self.drawing = drawing
        self.unet = _load("diffusers.UNet2DConditionModel", folder / "unet")
        self.vae = _load("diffusers.AutoencoderKL", folder / "vae")
        self.diffusion = Diffusion(_noise_of(folder / "scheduler" / "scheduler_config.json"))
        self.register_buffer("prompt", _empty_prompt(folder), persistent=False)
        self._cell = 2 ** (len(self.vae.config.block_out_channels) - 1)
        multiple = self._cell * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if drawing.side % multiple:
            raise ConfigError(
                f"{drawing.model}: found side {drawing.side}, expected a multiple of {multiple}"
            )
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "PictureModel":
        """It stays as it is, whatever is trained around it."""
        super().train(False)
        return self

    def draw(
        self, controlnet: nn.Module, codes: Float[Tensor, "B L h w"], seeds: Sequence[int]
    ) -> Float[Tensor, "B 3 P P"]:
        """Pictures from -1 to 1; each depends on its codes and its seed, not on the batch.

        Args:
            seeds: one a sample, of the noise that it begins with.

        Raises:
            ConfigError: seeds that are not one a sample.
        """
        cells = self.drawing.side // self._cell
        latents = self.diffusion.sample(
            self._denoiser(controlnet, self.drawing.guidance), self._spread(codes),
            (self.unet.config.in_channels, cells, cells), seeds, self.drawing.sampling,
        )  # fmt: skip
        latents = latents / self.vae.config.scaling_factor
        # one by one: another number of pictures may round differently
        pictures = [self.vae.decode(each[None]).sample for each in latents]
        empty = codes.new_zeros(0, 3, self.drawing.side, self.drawing.side)
        return torch.cat([empty, *pictures]).clamp(-1, 1)

    def loss(
        self,
        controlnet: nn.Module,
        pictures: Float[Tensor, "B 3 S S"],
        codes: Float[Tensor, "B L h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """What training a ControlNet makes small: the mean square of what it predicts, less what it
        should.

        Args:
            pictures: from -1 to 1; brought to the side that is drawn.
            generator: of the CPU, so that a seed means the same on every device.
        """
        side, device = self.drawing.side, pictures.device
        large = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
        with torch.no_grad():
            found = self.vae.encode(large).latent_dist
            drawn = torch.randn(found.mean.shape, generator=generator).to(device)
            latents = (found.mean + found.std * drawn) * self.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator).to(device)
        count = self.diffusion.config.steps
        steps = torch.randint(count, (len(latents),), generator=generator).to(device)
        denoiser = self._denoiser(controlnet, 1.0)
        return self.diffusion.loss(denoiser, latents, self._spread(codes), noise, steps)

    def _spread(self, codes: Float[Tensor, "B L h w"]) -> Float[Tensor, "B L _ _"]:
        """Codes at the size of latents, not of pictures: so the reference gives them, too."""
        cells = self.drawing.side // self._cell
        return F.interpolate(codes, (cells, cells), mode="nearest")

    def _denoiser(self, controlnet: nn.Module, guidance: float) -> Denoiser:
        def predict(noisy: Tensor, steps: Tensor, codes: Tensor) -> Tensor:
            words = self.prompt.expand(len(noisy), -1, -1)
            down, middle = controlnet(
                noisy, steps, encoder_hidden_states=words, controlnet_cond=codes, return_dict=False
            )
            led: Tensor = self.unet(
                noisy, steps, encoder_hidden_states=words, down_block_additional_residuals=down,
                mid_block_additional_residual=middle, return_dict=False,
            )[0]  # fmt: skip
            if guidance == 1:
                return led
            free: Tensor = self.unet(noisy, steps, encoder_hidden_states=words, return_dict=False)[
                0
            ]
            return free + guidance * (led - free)

        return predict


def new_controlnet(model: PictureModel, latent: int) -> nn.Module:
    """A ControlNet that is the model's first half, and at first adds nothing.

    Args:
        latent: width of the codes.
    """
    network = _package("diffusers").ControlNetModel.from_unet(
        model.unet, conditioning_channels=latent
    )
    return _without_strides(network.requires_grad_(True))


def load_controlnet(place: Path, model: PictureModel, latent: int) -> nn.Module:
    """A ControlNet of diffusers, for codes of some width.

    Raises:
        ConfigError: it is not there, is damaged, or belongs to another model or tokenizer.
    """
    network = _load("diffusers.ControlNetModel", place)
    unet, control = model.unet.config, network.config
    facts = {
        "conditioning_channels": (control.conditioning_channels, latent),
        "in_channels": (control.in_channels, unet.in_channels),
        "block_out_channels": (control.block_out_channels, unet.block_out_channels),
        "cross_attention_dim": (control.cross_attention_dim, unet.cross_attention_dim),
    }
    for name, (found, expected) in facts.items():
        if found != expected:
            raise ConfigError(
                f"{place}: found a ControlNet with {name} {found}, expected {expected}: it belongs "
                f"to another model or tokenizer"
            )
    return _without_strides(network)


def _without_strides(network: Any) -> nn.Module:
    """Codes come at the size of latents: convolutions that read them keep it."""
    for each in network.controlnet_cond_embedding.blocks:
        each.stride = (1, 1)
    adapted: nn.Module = network
    return adapted


def _load(name: str, place: Path) -> Any:
    """A network of a package, by safetensors alone, frozen; every weight is in its file.

    Raises:
        ConfigError: it is not there, or is another network's.
        MissingPackageError: there is no such package.
    """
    package, _, class_name = name.partition(".")
    model_class = getattr(_package(package), class_name)
    try:
        model, about = model_class.from_pretrained(
            str(place), local_files_only=True, use_safetensors=True, output_loading_info=True,
            **({"low_cpu_mem_usage": False} if package == "diffusers" else {}),
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{place}: not a {class_name}: {error!s:.300}") from error
    lacking = sorted({*about["missing_keys"], *about["unexpected_keys"]})
    if lacking:
        raise ConfigError(
            f"{place}: not the weights of this {class_name}: {len(lacking)} are missing or "
            f"unknown, {lacking[0]} first"
        )
    return model.eval().requires_grad_(False)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"decoding with a ControlNet needs {name}: pip install 'fourmill[diffusion]'"
        ) from error


@torch.inference_mode()
def _empty_prompt(folder: Path) -> Float[Tensor, "1 words width"]:
    """What the text encoder says of no words: codes alone lead the picture."""
    try:
        tokenizer = _package("transformers").CLIPTokenizer.from_pretrained(
            str(folder / "tokenizer"), local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / 'tokenizer'}: not CLIP's: {error!s:.300}") from error
    encoder = _load("transformers.CLIPTextModel", folder / "text_encoder")
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    words = tokenizer("", padding="max_length", max_length=length, return_tensors="pt")
    states: Tensor = encoder(words.input_ids)[0]
    return states.clone()


def _noise_of(path: Path) -> DiffusionConfig:
    try:
        return DiffusionConfig.of_diffusers(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: not the noise of a diffusion that is known: {error}") from error
