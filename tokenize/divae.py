"""The network of a diffusion tokenizer: a ViT encoder, a quantizer, and a U-Net that denoises.

Parameters are named as in the reference implementation of 4M, so that its weights load.
Shapes: B batch, C channels, H and W pixels, L latent width, h and w tokens.
"""

from collections.abc import Sequence

from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from fourmill.tokenize.autoencoder import EncoderConfig, TokenEncoder
from fourmill.tokenize.diffusion import Diffusion, DiffusionConfig, Sampling
from fourmill.tokenize.unet import UNet, UNetConfig

_SAMPLING = Sampling()


class DiVAEConfig(BaseModel):
    """Shape of a `DiVAE`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: EncoderConfig = Field(description="what makes tokens of an image")
    unet: UNetConfig = Field(default=UNetConfig(), description="what denoises, given tokens")
    diffusion: DiffusionConfig = Field(
        default=DiffusionConfig(), description="the noise, and what is predicted"
    )

    @model_validator(mode="after")
    def _fits(self) -> "DiVAEConfig":
        if self.encoder.labels:
            raise ValueError("classes have no noise to remove: found labels, expected none")
        if self.encoder.size % self.unet.multiple:
            raise ValueError(
                f"found size {self.encoder.size}, expected a multiple of {self.unet.multiple}, "
                "the cells of the U-Net's last level"
            )
        return self


class DiVAE(TokenEncoder):
    """Values → tokens; noisy values and tokens → less noisy ones."""

    def __init__(self, config: DiVAEConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        self.diffusion = Diffusion(config.diffusion)
        self.decoder = UNet(config.unet, config.encoder.channels, config.encoder.latent)

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
            commitment: weight of how far latents are from their codes.
        """
        latents = self.encode(values)
        tokens = self.quantize.tokenize(latents)
        codes = self.quantize.lookup(tokens)
        passed = latents + (codes - latents).detach()  # straight through
        loss = self.diffusion.loss(self.decoder, values, passed, noise, steps, cap)
        return loss + commitment * F.mse_loss(latents, codes), latents.detach(), tokens

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
