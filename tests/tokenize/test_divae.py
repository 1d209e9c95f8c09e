"""Diffusion tokenizers take what fits them, and say what does not."""

import pytest
import torch
from pydantic import ValidationError

from fourmill.tokenize.autoencoder import EncoderConfig
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.tokenize.unet import UNetConfig

SMALL_UNET = UNetConfig(width=8, factors=(1, 2), depth=1, attention=frozenset({1}), groups=4)


def small(**encoder):
    shape = {"channels": 3, "size": 16, "patch": 8, "dim": 16, "codes": 8} | encoder
    return DiVAEConfig(encoder=EncoderConfig(**shape), unet=SMALL_UNET)


def test_shapes_are_stored_as_json_and_read_back():
    config = small()
    assert DiVAEConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("height", [16, 24])
@torch.inference_mode()
def test_one_network_takes_images_of_other_sizes(height):
    network = DiVAE(small()).eval()
    image = torch.zeros(2, 3, height, 16)
    codes = network.quantize.lookup(network.tokenize(image))
    assert network.decoder(image, torch.tensor([0, 9]), codes).shape == image.shape


@pytest.mark.parametrize(
    ("encoder", "reason"), [({"labels": 5}, "labels"), ({"size": 20, "patch": 4}, "multiple of 8")]
)
def test_what_it_cannot_decode_is_refused_with_the_reason(encoder, reason):
    with pytest.raises(ValidationError, match=reason):
        small(**encoder)
