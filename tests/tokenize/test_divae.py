"""Diffusion tokenizers take what fits them, and say what does not."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import ValidationError

from fourmill.tokenize.autoencoder import EncoderConfig
from fourmill.tokenize.diffusion import Sampling
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.tokenize.unet import UNetConfig, step_waves

SMALL_UNET = UNetConfig(width=8, factors=(1, 2), depth=1, attention=(1,), groups=4)


def small(**encoder):
    shape = {"channels": 3, "size": 16, "patch": 8, "dim": 16, "codes": 8} | encoder
    return DiVAEConfig(encoder=EncoderConfig(**shape), unet=SMALL_UNET)


def network_of_random_weights():
    """A new one predicts nothing but zeros."""
    generator = torch.Generator().manual_seed(0)
    network = DiVAE(small())
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


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
    with pytest.raises(ValueError, match=f"found {height}x12 pixels, expected multiples of 8"):
        network.decoder(image[..., :12], torch.tensor([0, 9]), codes)


@pytest.mark.parametrize(
    ("encoder", "reason"), [({"labels": 5}, "labels"), ({"size": 20, "patch": 4}, "multiple of 8")]
)
def test_what_it_cannot_decode_is_refused_with_the_reason(encoder, reason):
    with pytest.raises(ValidationError, match=reason):
        small(**encoder)


@torch.inference_mode()
def test_a_new_decoder_predicts_zeros_and_a_trained_one_knows_the_step():
    noisy, codes = torch.ones(2, 3, 16, 16), torch.ones(2, 32, 2, 2)
    steps = torch.tensor([3, 30])
    assert DiVAE(small()).decoder(noisy, steps, codes).eq(0).all()
    early, late = network_of_random_weights().decoder(noisy, steps, codes)
    assert (early - late).abs().mean() > 1e-3


def test_steps_are_told_by_cosines_then_sines():
    steps = torch.tensor([0, 1, 300, 999])
    expected = get_timestep_embedding(steps, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(step_waves(steps, 256), expected, rtol=0, atol=1e-4)


def test_what_the_decoder_gets_wrong_reaches_the_encoder_through_the_tokens():
    network = network_of_random_weights()
    noisy, steps = torch.ones(2, 3, 16, 16), torch.tensor([5, 500])
    loss, _, _ = network.loss(noisy, noisy, steps, commitment=0.0)
    (gradient,) = torch.autograd.grad(loss, network.encoder.proj.weight)
    assert gradient.abs().sum() > 0


def test_training_makes_the_loss_small():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = DiVAE(small())
    colours = torch.rand(16, 3, 1, 1, generator=generator) * 2 - 1
    images = colours.expand(-1, -1, 16, 16)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        noise = torch.randn(images.shape, generator=generator)
        steps = torch.randint(1000, (16,), generator=generator)
        loss, latents, tokens = network.loss(images, noise, steps, cap=5.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.quantize.update(latents, tokens, generator)
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10]) / 3


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm"])
def test_a_decoding_depends_on_its_tokens_and_seed_alone(sampler):
    network = network_of_random_weights().eval()
    tokens = torch.arange(5)[:, None, None].expand(5, 2, 2)
    sampling = Sampling(sampler=sampler, steps=3, at_once=2)
    together = network.decode_tokens(tokens, [7, 8, 9, 7, 7], sampling)
    assert together.shape == (5, 3, 16, 16)
    for index, seed in enumerate([7, 8, 9, 7, 7]):
        alone = network.decode_tokens(tokens[[index]], [seed], sampling)
        assert torch.equal(alone[0], together[index])
    backwards = network.decode_tokens(tokens.flip(0), [7, 7, 9, 8, 7], sampling)
    assert torch.equal(backwards.flip(0), together)
    again = network.decode_tokens(tokens[[0, 0]], [7, 8], sampling)
    assert not torch.equal(again[0], again[1])
