"""The networks compute what the reference computes with the same weights, by the same names."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fourmill.tokenize import published
from fourmill.tokenize.autoencoder import (
    AutoencoderConfig,
    EncoderConfig,
    TokenEncoder,
    VQAutoencoder,
)
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.diffusion import DiffusionConfig
from fourmill.tokenize.divae import DiVAE, DiVAEConfig

DATA = Path(__file__).parents[1] / "data" / "tokenize"
REFERENCE = np.load(DATA / "reference.npz")
GLOBAL = np.load(DATA / "reference_global.npz")
VIT_S: dict[str, Any] = {"dim": 512, "encoder_depth": 8, "heads": 8}


Network = TypeVar("Network", bound=TokenEncoder)


def weights_by_rule(state: dict[str, torch.Tensor], names: list[str]) -> None:
    """Weights from sines of the parameter's number and position."""
    for index, name in enumerate(names):
        size = state[name].shape
        scale = 0.5 / size[-1] ** 0.5 if len(size) > 1 else 0.1
        values = np.sin(0.7 * np.arange(state[name].numel()) + index) * scale
        values += 1.0 if "norm" in name and name.endswith("weight") else 0.0
        state[name] = torch.from_numpy(values.reshape(size)).float()


def with_weights(case: str, network: Network) -> Network:
    """Weights by the rule; codes from cosines."""
    state = network.state_dict()
    weights_by_rule(state, REFERENCE[f"{case}/names"].tolist())
    codes = state["quantize._codebook.embed"]
    waves = np.cos(1.3 * np.arange(codes.numel())).reshape(codes.shape)
    state["quantize._codebook.embed"] = F.normalize(torch.from_numpy(waves).float(), dim=-1)
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize(
    ("case", "shape", "inputs", "decoded", "part"),
    [
        (
            "vq",
            {"channels": 3, "size": 64, "patch": 16, "codes": 256},
            np.sin(0.003 * np.arange(2 * 3 * 64 * 64)).reshape(2, 3, 64, 64).astype(np.float32),
            "decoded_every_8th_pixel",
            (..., slice(None, None, 8), slice(None, None, 8)),
        ),
        (
            "semseg",
            {"channels": 64, "labels": 134, "size": 64, "patch": 16, "codes": 128},
            (np.arange(2 * 64 * 64) * 7 // 97 % 134).reshape(2, 64, 64),
            "logits_every_16th_pixel",
            (..., slice(None, None, 16), slice(None, None, 16)),
        ),
        (
            "features",
            {"channels": 512, "size": 14, "patch": 1, "codes": 128},
            np.sin(0.0007 * np.arange(2 * 512 * 14 * 14))
            .reshape(2, 512, 14, 14)
            .astype(np.float32),
            "decoded_every_64th_channel",
            (slice(None), slice(None, None, 64)),
        ),
    ],
    ids=["vq", "semseg", "features"],
)
@torch.inference_mode()
def test_latents_tokens_and_decodings_are_the_references(case, shape, inputs, decoded, part):
    config = AutoencoderConfig(**VIT_S, decoder_depth=8, **shape)
    network, inputs = with_weights(case, VQAutoencoder(config)), torch.from_numpy(inputs)
    latents = network.encode(inputs)
    expected = REFERENCE[f"{case}/latents_before_quantizing"]
    # latents reach 28: the bound is two millionths of that
    torch.testing.assert_close(latents.numpy(), expected, rtol=2e-6, atol=6e-5)
    tokens = network.tokenize(inputs)
    np.testing.assert_array_equal(tokens, REFERENCE[f"{case}/tokens"])
    found = network.decode_tokens(tokens)[part].numpy()
    np.testing.assert_allclose(found, REFERENCE[f"{case}/{decoded}"], atol=1e-5)


@torch.inference_mode()
def test_a_denoising_pass_given_tokens_is_the_references():
    shape = EncoderConfig(channels=3, size=64, patch=16, codes=512, **VIT_S)
    ours = with_weights("divae", DiVAE(DiVAEConfig(encoder=shape)))
    assert {name for name, _ in ours.named_parameters()} == set(REFERENCE["divae/names"])
    # as a published file is read, but for the 880 MB on disk
    settings = {
        "enc_type": "vit_s_enc", "dec_type": "unet_patched", "post_mlp": True, "patch_size": 16,
        "codebook_size": 512, "latent_dim": 32, "beta_schedule": "linear",
        "prediction_type": "sample", "zero_terminal_snr": False,
    }  # fmt: skip
    network = published._dense_network(settings, ours.state_dict(), size=64)
    assert isinstance(network, DiVAE)
    assert network.config.diffusion == DiffusionConfig(zero_snr=False)
    positions = torch.arange(3 * 64 * 64)
    image = torch.sin(0.003 * positions).view(1, 3, 64, 64)
    latents = network.encode(image).numpy()
    expected = REFERENCE["divae/latents_before_quantizing"]
    np.testing.assert_allclose(latents, expected, rtol=2e-6, atol=6e-5)
    tokens = network.tokenize(image)
    np.testing.assert_array_equal(tokens, REFERENCE["divae/tokens"])

    noise = torch.cos(0.7 * positions).view(1, 3, 64, 64)
    noisy = network.diffusion.noisy(image, noise, torch.tensor([300]))
    np.testing.assert_allclose(
        noisy[..., ::8, ::8], REFERENCE["divae/noisy_every_8th_pixel"], atol=1e-6
    )
    codes = network.quantize.lookup(tokens)
    clean = network.decoder(noisy, torch.tensor([300]), codes)[..., ::4, ::4]
    np.testing.assert_allclose(clean, REFERENCE["divae/predicted_clean_every_4th_pixel"], atol=1e-5)


@torch.inference_mode()
def test_tokens_of_vectors_are_the_references():
    shape = {"dim": 256, "encoder_depth": 2, "decoder_depth": 2, "latent": 256}
    network = BottleneckAutoencoder(BottleneckConfig(channels=768, books=16, codes=64, **shape))
    state = network.state_dict()
    names = GLOBAL["global/names"].tolist()
    assert sorted(names) == sorted(state)
    weights_by_rule(state, names)
    network.load_state_dict(state)
    network.eval()
    vectors = np.sin(0.01 * np.arange(3 * 768)).reshape(3, 768, 1, 1).astype(np.float32)
    latents = network.encode(torch.from_numpy(vectors))
    expected = GLOBAL["global/latents_before_quantizing"]
    np.testing.assert_allclose(latents, expected, rtol=1e-5, atol=1e-5)
    tokens = network.quantize.tokenize(latents)
    np.testing.assert_array_equal(tokens, GLOBAL["global/tokens"])
    decoded = network.decode_tokens(tokens)
    np.testing.assert_allclose(decoded, GLOBAL["global/decoded"], rtol=0, atol=1e-4)
    torch.testing.assert_close(network.decode(network.quantize(latents)), decoded)
