"""The network of a diffusion tokenizer: a ViT encoder, a quantizer, and what denoises.

That is a U-Net, or a UViT (`tokenize/uvit.py`).

Parameters are named as in the reference implementation of 4M, so that its weights load.
Shapes: B batch, C channels, H and W pixels, L latent width, h and w tokens.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from fourmill.tokenize.autoencoder import EncoderConfig, NetworkConfig, TokenEncoder
from fourmill.tokenize.diffusion import Diffusion, DiffusionConfig, Sampling
from fourmill.tokenize.quantize import ScalarQuantizer
from fourmill.tokenize.unet import UNet, UNetConfig
from fourmill.tokenize.uvit import UViT, UViTConfig

_SAMPLING = Sampling()


def _is_none(value: Any) -> bool:
    return value is None


class DiVAEConfig(NetworkConfig):
    """Shape of a `DiVAE`: an encoder, and either `unet` (the default) or `uvit`."""

    encoder: EncoderConfig = Field(description="what makes tokens of an image")
    unet: UNetConfig | None = Field(
        default=None, exclude_if=_is_none, description="what denoises, given tokens"
    )
    uvit: UViTConfig | None = Field(
        default=None, exclude_if=_is_none, description="what denoises instead"
    )
    diffusion: DiffusionConfig = Field(
        default=DiffusionConfig(), description="the noise, and what is predicted"
    )

    @model_validator(mode="before")
    @classmethod
    def _unet_by_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("unet") and not values.get("uvit"):
            return values | {"unet": UNetConfig()}
        return values

    @property
    def denoiser(self) -> UNetConfig | UViTConfig:
        """Of what denoises."""
        chosen = self.unet or self.uvit
        assert chosen is not None
        return chosen

    def resized(self, size: int) -> "DiVAEConfig":
        """The same for inputs of another side."""
        return DiVAEConfig.model_validate(
            self.model_dump() | {"encoder": self.encoder.resized(size)}
        )

    @model_validator(mode="after")
    def _fits(self) -> "DiVAEConfig":
        if self.unet and self.uvit:
            raise ValueError("found unet and uvit, expected one of them")
        if self.encoder.labels:
            raise ValueError("classes have no noise to remove: found labels, expected none")
        multiple = self.denoiser.multiple
        if self.encoder.size % multiple:
            raise ValueError(
                f"found size {self.encoder.size}, expected a multiple of {multiple}, the cells of "
                "the denoiser's last level"
            )
        if self.uvit and multiple != self.encoder.patch:
            raise ValueError(
                f"found a transformer on cells of {multiple} pixels, expected the tokens' "
                f"{self.encoder.patch}: change patch or the number of factors of uvit"
            )
        return self


class DiVAE(TokenEncoder):
    """Values → tokens; noisy values and tokens → less noisy ones."""

    def __init__(self, config: DiVAEConfig) -> None:
        super().__init__(config.encoder)
        self.config: DiVAEConfig = config
        self.diffusion = Diffusion(config.diffusion)
        shape = config.encoder
        denoiser = config.denoiser
        self.decoder = (
            UViT(denoiser, shape.channels, shape.latent, shape.grid)
            if isinstance(denoiser, UViTConfig)
            else UNet(denoiser, shape.channels, shape.latent)
        )

    def loss(
        self,
        values: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
        cap: float | None = None,
        commitment: float = 1.0,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B L h w"], Int[Tensor, "B h w"]]:
        """What training makes small, and what moves the code book: latents and their tokens.

        Args:
            cap: see `Diffusion.loss`.
            commitment: weight of how far latents are from their codes, if there is a code book.
        """
        latents = self.encode(values)
        tokens = self.quantize.tokenize(latents)
        if isinstance(self.quantize, ScalarQuantizer):  # it has no codes to be near to
            passed, apart = self.quantize(latents), latents.new_zeros(())
        else:
            codes = self.quantize.lookup(tokens)
            passed = latents + (codes - latents).detach()  # straight through
            apart = F.mse_loss(latents, codes)
        loss = self.diffusion.loss(self.decoder, values, passed, noise, steps, cap)
        return loss + commitment * apart, latents.detach(), tokens

    def decode_tokens(
        self,
        tokens: Int[Tensor, "B h w"],
        seeds: Sequence[int],
        sampling: Sampling = _SAMPLING,
    ) -> Float[Tensor, "B C H W"]:
        """Values that tokens stand for, one of many that they could: the seed says which.

        Raises:
            ConfigError: more steps than the diffusion has, or seeds that are not one a sample.
            MissingPackageError: there is no `diffusers`.
        """
        shape = self.config.encoder
        height, width = (shape.patch * side for side in tokens.shape[1:])
        codes = self.quantize.lookup(tokens)
        return self.diffusion.sample(
            self.decoder, codes, (shape.channels, height, width), seeds, sampling
        )
