"""Tokenizers of vectors: a token of each code book, learned by gradients, kept in a folder."""

import numpy as np
import pytest
import torch

from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality
from fourmill.tokenize import registry
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.quantize import ParallelQuantizer
from fourmill.tokenize.vectors import VectorTokenizer

SHAPE = {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "latent": 64, "books": 16, "codes": 32}


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    network = BottleneckAutoencoder(BottleneckConfig(channels=768, **SHAPE))
    return VectorTokenizer(modality("DINOv2-B14-global"), network, "dinov2_global")


def vectors(count, seed=0):
    return list(np.random.default_rng(seed).normal(size=(count, 768)).astype(np.float32))


def tokens_of(tokenizer, labels):
    crops = [np.array([[0, 0, 8, 8, 0], [0, 0, 4, 4, 1]])] * len(labels)
    keys = [str(index) for index in range(len(labels))]
    return tokenizer.tokenize(labels, crops, [(8, 8)] * len(labels), keys)


def test_a_vector_becomes_the_tokens_that_4m_knows(tokenizer):
    tokens = tokens_of(tokenizer, vectors(70))
    assert (tokens.shape, str(tokens.dtype)) == ((70, 16), "int16")
    assert len(np.unique(tokens)) > 16
    definition, known = tokenizer.token_modality, modality("tok_dinov2_global")
    assert (definition.name, definition.token_of) == (known.name, known.token_of)
    assert (definition.grid, definition.learned_positions) == (known.grid, True)
    for each in tokenizer.detokenize(tokens):
        check_label(modality("DINOv2-B14-global"), each)


def test_tokens_of_a_vector_do_not_depend_on_the_others(tokenizer):
    labels = vectors(70)
    together = tokens_of(tokenizer, labels)
    np.testing.assert_array_equal(tokens_of(tokenizer, labels[::-1])[::-1], together)
    np.testing.assert_array_equal(tokens_of(tokenizer, labels[69:])[0], together[69])


def test_a_folder_keeps_all_of_it(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a")
    loaded = registry.load(tmp_path / "a")
    labels = vectors(3)
    np.testing.assert_array_equal(tokens_of(loaded, labels), tokens_of(tokenizer, labels))
    loaded.save(tmp_path / "b")
    assert registry.weights_sha256(tmp_path / "b") == registry.weights_sha256(tmp_path / "a")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="not a tokenizer of vectors"):
        registry.load(tmp_path / "b")


def test_what_is_wrong_is_told(tokenizer):
    with pytest.raises(SampleError):
        tokens_of(tokenizer, [np.zeros((768, 2), np.float32)])
    with pytest.raises(ConfigError, match="expected 0 to 31"):
        tokenizer.detokenize(np.full((1, 16), 32))
    with pytest.raises(ConfigError, match="for vectors of 768"):
        VectorTokenizer(modality("ImageBind-H14-global"), tokenizer.network)
    with pytest.raises(ValueError, match="multiple of the 3 code books"):
        ParallelQuantizer(3, 8, 16)


def test_training_draws_codes_by_their_probability_and_reaches_all_parameters():
    torch.manual_seed(0)
    quantizer = ParallelQuantizer(2, 4, 8).train()
    latents = torch.randn(1, 8, 1, 1).expand(20_000, -1, -1, -1).clone().requires_grad_()
    drawn = quantizer(latents, torch.Generator().manual_seed(1))
    values = quantizer.to_v(quantizer.codes).detach()
    keys = quantizer.to_k(quantizer.codes).detach()
    halves = drawn.detach()[:, :, 0, 0].view(-1, 2, 4)
    distance = (halves[:, :, None] - values).abs().amax(-1)
    assert float(distance.amin(-1).max()) < 1e-5  # one code each, no mixture
    shares = torch.nn.functional.one_hot(distance.argmin(-1), 4).double().mean(0)
    query = latents[0, :, 0, 0].detach().view(2, 4)
    expected = torch.einsum("gm,gkm->gk", query, keys).div(2).softmax(-1)
    torch.testing.assert_close(shares.float(), expected, atol=0.015, rtol=0)
    drawn.square().mean().backward()
    for each in (latents, *quantizer.parameters()):
        assert each.grad is not None
        assert float(each.grad.abs().max()) > 0


def test_gradient_steps_lower_the_error_of_what_evaluation_gives_back():
    torch.manual_seed(0)
    network = BottleneckAutoencoder(BottleneckConfig(channels=768, **SHAPE))
    basis = torch.randn(8, 768)
    data = torch.randn(64, 8) @ basis / 8**0.5
    batch, generator = data[..., None, None], torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)

    def error():
        with torch.inference_mode():
            decoded = network.eval().decode_tokens(network.tokenize(batch))
        return float((decoded - batch).square().mean())

    before = error()
    for _ in range(60):
        network.train()
        decoded = network.decode(network.quantize(network.encode(batch), generator))
        optimizer.zero_grad()
        (decoded - batch).square().mean().backward()
        optimizer.step()
    assert error() < 0.8 * before
