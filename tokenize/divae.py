"""The network of a diffusion tokenizer: a ViT encoder, a quantizer, and a U-Net that denoises.

Parameters are named as in the reference implementation of 4M, so that its weights load.
"""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fourmill.tokenize.autoencoder import EncoderConfig, TokenEncoder
from fourmill.tokenize.unet import UNet, UNetConfig


class DiVAEConfig(BaseModel):
    """Shape of a `DiVAE`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: EncoderConfig = Field(description="what makes tokens of an image")
    unet: UNetConfig = Field(default=UNetConfig(), description="what denoises, given tokens")

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
        self.decoder = UNet(config.unet, config.encoder.channels, config.encoder.latent)
