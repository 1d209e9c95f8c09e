"""A random few of all tokens are decoded again: the error is that of the whole way and back."""

import numpy as np
import pytest
import torch

from fourmill.manifests.modalities import Kind, Modality, modality
from fourmill.tokenize.autoencoder import AutoencoderConfig, EncoderConfig, VQAutoencoder
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.encoder_only import EncoderOnly
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.verify import reconstruction_errors
from fourmill.tokenize.vq import EncoderOnlyTokenizer, VQTokenizer

SHAPE = {"size": 32, "patch": 8, "dim": 16, "encoder_depth": 1, "heads": 2, "latent": 4,
         "codes": 16}  # fmt: skip
KEYS = [f"sample-{number}" for number in range(400)]
CLASSES = Modality("halves", Kind.CLASSES, "halves", "png", channels=2, classes=("a", "b"))
RNG = np.random.default_rng(0)


def vq(definition: Modality, **options: int) -> VQTokenizer:
    torch.manual_seed(0)
    shape = SHAPE | {"decoder_depth": 1, "channels": definition.channels} | options
    return VQTokenizer(definition, 32, 8, VQAutoencoder(AutoencoderConfig(**shape)))


def errors_of(tokenizer: Tokenizer, labels: list) -> dict[int, float]:
    sizes = [(40, 48)] * len(labels)
    keys = KEYS[: len(labels)]
    crops = [crop_settings(key, 40, 48, 2) for key in keys]
    tokens = tokenizer.tokenize(labels, crops, sizes, keys)
    return reconstruction_errors(tokenizer, labels, crops, sizes, keys, tokens)


def test_the_error_is_the_mean_square_of_what_the_network_sees_and_gives_back():
    tokenizer = vq(modality("rgb"))
    labels = [RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8) for _ in KEYS]
    errors = errors_of(tokenizer, labels)
    assert 1 <= len(errors) <= 20
    for row, error in errors.items():
        given = tokenizer.prepare(labels[row], crop_settings(KEYS[row], 40, 48, 2), (40, 48))
        decoded = tokenizer.decode(tokenizer.encode(given))
        assert error == pytest.approx(float((decoded - given).square().mean()), rel=1e-5)


def test_which_are_decoded_depends_on_the_key_alone():
    tokenizer = vq(modality("rgb"))
    labels = [RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8) for _ in KEYS]
    everything = errors_of(tokenizer, labels)
    row = max(everything)
    assert errors_of(tokenizer, labels[: row + 1])[row] == everything[row]


def test_of_classes_it_is_the_share_of_wrong_places():
    labels = [RNG.integers(0, 2, (40, 48)).astype(np.uint8) for _ in KEYS]
    errors = errors_of(vq(CLASSES, channels=4, labels=3), labels)
    assert all(0 < each <= 1 for each in errors.values())


def test_of_vectors_it_is_one_less_the_cosine():
    definition = Modality("six", Kind.VECTOR, "six", "npy", channels=6)
    torch.manual_seed(0)
    config = BottleneckConfig(channels=6, dim=8, latent=8, books=4, codes=8)
    tokenizer = VectorTokenizer(definition, BottleneckAutoencoder(config))
    labels = [RNG.normal(size=6).astype(np.float32) for _ in KEYS]
    errors = errors_of(tokenizer, labels)
    assert errors
    assert all(0 <= each <= 2 for each in errors.values())


def test_what_has_no_decoder_is_not_decoded():
    network = EncoderOnly(EncoderConfig(channels=3, **SHAPE))
    labels = [RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8) for _ in KEYS]
    assert errors_of(EncoderOnlyTokenizer(modality("rgb"), 32, 8, network), labels) == {}
