"""Tokenizers published for the reference implementation load, and make the same tokens."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fourmill.manifests.errors import ConfigError, MissingPackageError, NoDecoderError
from fourmill.manifests.modalities import modality
from fourmill.pipeline.config import ImageTokenizerConfig, TokenizeConfig
from fourmill.pipeline.tokenizers import missing_images, token_name
from fourmill.tokenize import published, registry
from fourmill.tokenize.autoencoder import (
    AutoencoderConfig,
    ConvNeXtBlock,
    EncoderConfig,
    VQAutoencoder,
)
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.diffused import DiffusionTokenizer
from fourmill.tokenize.diffusion import DiffusionConfig, Sampling
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.tokenize.evaluate import evaluate
from fourmill.tokenize.masks import MaskTokenizer
from fourmill.tokenize.unet import UNetConfig
from fourmill.tokenize.vq import EncoderOnlyTokenizer, VQTokenizer

WIDTHS = {"dim": 64, "heads": 1, "encoder_depth": 2, "decoder_depth": 2, "codes": 64}
VIT = {
    "image_size": 64, "n_channels": 3, "enc_type": "vit_t_enc", "dec_type": "vit_t_dec",
    "patch_proj": True, "post_mlp": True, "patch_size": 16, "quant_type": "lucid",
    "codebook_size": 64, "num_codebooks": 1, "latent_dim": 32, "norm_codes": True,
    "norm_latents": False, "sync_codebook": False, "undo_std": False, "ckpt_path": None,
}  # fmt: skip
MLP = {
    "n_channels": 768, "enc_type": "BottleneckMLP/B_2-Wi_32", "dec_type": "BottleneckMLP/B_1-Wi_32",
    "quant_type": "memcodes", "codebook_size": 64, "num_codebooks": 16, "latent_dim": 64,
}  # fmt: skip
DIFFUSION = {
    "dec_type": "unet_patched", "beta_schedule": "linear", "prediction_type": "sample",
    "num_train_timesteps": 1000, "zero_terminal_snr": True, "clip_sample": False,
    "thresholding": True, "patch_size_dec": 4, "cls_free_guidance_dropout": 0.0,
}  # fmt: skip
UNET = UNetConfig(width=8, factors=(1, 1, 1, 2), depth=1, attention=(3,), groups=4)
RGB = "EPFL-VILAB/4M_tokenizers_rgb_16k_224-448"
SEMSEG = "4M_tokenizers_semseg_4k_224-448"
CLIP = "4M_tokenizers_CLIP-B16_8k_224-448"
DINO = "4M_tokenizers_DINOv2-B14-global_8k_16_224"
POSES = "4M_tokenizers_human-poses_1k_8"
SAM = "4M_tokenizers_sam-instance_1k_64"


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """The smallest published transformer has 25 million parameters, and the decoder 196."""
    monkeypatch.setitem(published._TRANSFORMERS, "t", (64, 2, 1))
    monkeypatch.setitem(published._UNETS, "unet_patched", UNET)


def transformer(**shape):
    torch.manual_seed(0)
    config = {"channels": 3, "size": 64, "patch": 16, **WIDTHS, **shape}
    return VQAutoencoder(AutoencoderConfig(**config)).eval()


def mlp():
    torch.manual_seed(0)
    shape = {"dim": 32, "encoder_depth": 2, "decoder_depth": 1, "latent": 64}
    return BottleneckAutoencoder(BottleneckConfig(channels=768, books=16, codes=64, **shape)).eval()


def diffuser(channels=3, **diffusion):
    """With a decoder of random weights; a new one predicts nothing but zeros."""
    torch.manual_seed(0)
    shape = {name: value for name, value in WIDTHS.items() if name != "decoder_depth"}
    encoder = EncoderConfig(channels=channels, size=64, patch=16, **shape)
    config = DiVAEConfig(encoder=encoder, unet=UNET, diffusion=DiffusionConfig(**diffusion))
    network = DiVAE(config)
    for parameter in network.decoder.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.data = torch.randn(parameter.shape) / fan_in**0.5
    return network.eval()


def publish(folder, network, settings, without=()):
    """A folder as the reference's repositories are."""
    state = {
        name: each.contiguous()
        for name, each in network.state_dict().items()
        if not name.startswith(tuple(without))
    }
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def tokens_of(tokenizer, labels, sizes):
    names = [str(index) for index in range(len(labels))]
    crops = [
        crop_settings(name, height, width, 2)
        for name, (height, width) in zip(names, sizes, strict=True)
    ]
    return tokenizer.tokenize(labels, crops, sizes, names), crops


def same_as_the_writers(tokenizer, network, labels):
    """The tokens of the user's way, after they were compared with what the writer makes."""
    sizes = [(64, 80)] * len(labels)
    tokens, crops = tokens_of(tokenizer, labels, sizes)
    prepared = [tokenizer.prepare(*each) for each in zip(labels, crops, sizes, strict=True)]
    with torch.inference_mode():
        expected = network.tokenize(torch.cat(prepared)).flatten(1)
    np.testing.assert_array_equal(tokens.reshape(expected.shape), expected)
    assert len(np.unique(tokens)) > 3
    return tokens


def pictures(photographs):
    return [photo[:64, :80] for photo in photographs.values()]


def denoised(network, side):
    """One pass of the decoder on fixed noise, given fixed tokens."""
    tokens = torch.arange((side // 16) ** 2).view(1, side // 16, side // 16)
    noisy = torch.linspace(-2, 2, 3 * side**2).sin().view(1, 3, side, side)
    with torch.inference_mode():
        codes = network.quantize.lookup(tokens)
        return network.decoder(noisy, torch.tensor([300]), codes)


def test_an_id_gives_the_published_tokenizer_with_its_decoder(photographs, tmp_path, monkeypatch):
    network = diffuser()
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path / "cache"))
    folder = publish(tmp_path / RGB, network, VIT | DIFFUSION)
    tokenizer = registry.load(RGB)
    assert isinstance(tokenizer, DiffusionTokenizer)
    assert tokenizer.spec.modality == "tok_rgb@224"
    assert (tokenizer.spec.reads, tokenizer.spec.max_tokens) == ("rgb", 196)
    assert (tokenizer.network.config.diffusion, tokenizer.sampling) == (
        DiffusionConfig(),
        Sampling(clip=True, at_once=1),
    )
    same_as_the_writers(tokenizer, network, pictures(photographs)[:3])

    small = registry.load(folder, size=64)
    assert isinstance(small, DiffusionTokenizer)
    tokens = same_as_the_writers(small, network, pictures(photographs))
    # weights in a file's memory lie otherwise, and other kernels round otherwise: a few 1e-7 of 1
    torch.testing.assert_close(
        denoised(small.network, 64), denoised(network, 64), rtol=0, atol=2e-6
    )
    decoded = small.detokenize(tokens[:2, 0])
    assert decoded[0].shape == (64, 64, 3)
    small.save(tmp_path / "tok_rgb@64")
    again = registry.load(tmp_path / "tok_rgb@64")
    assert isinstance(again, DiffusionTokenizer)
    same_as_the_writers(again, network, pictures(photographs))
    np.testing.assert_array_equal(again.detokenize(tokens[:2, 0]), decoded)


@pytest.mark.parametrize(
    ("name", "modality", "channels", "clips"),
    [("depth_8k", "depth", 1, False), ("normal_8k", "normal", 3, True),
     ("edge_8k", "canny_edge", 1, True)],
)  # fmt: skip
def test_depth_normals_and_edges_decode_too_and_only_depth_is_not_clipped(
    name, modality, channels, clips, tmp_path
):
    settings = VIT | DIFFUSION | {"n_channels": channels}
    folder = publish(tmp_path / f"4M_tokenizers_{name}_224-448", diffuser(channels), settings)
    tokenizer = registry.load(folder, size=64)
    assert isinstance(tokenizer, DiffusionTokenizer)
    assert (tokenizer.spec.modality, tokenizer.sampling.clip) == (f"tok_{modality}@64", clips)
    decoded = tokenizer.sampled_by(Sampling(steps=1)).detokenize(np.arange(16)[None])[0]
    assert decoded.shape[:2] == (64, 64)
    silent = publish(
        tmp_path / f"4M_tokenizers_{name}_224",
        diffuser(channels),
        settings | {"thresholding": False},
    )
    assert registry.load(silent, size=64).sampling.clip is False


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"beta_schedule": "shifted_cosine:0.5", "zero_terminal_snr": False},
         DiffusionConfig(betas="shifted_cosine:0.5")),
        ({"prediction_type": "v_prediction", "num_train_timesteps": 500},
         DiffusionConfig(predicts="velocity", steps=500)),
        ({"prediction_type": "epsilon", "zero_terminal_snr": False},
         DiffusionConfig(predicts="noise", zero_snr=False)),
        ({"prediction_type": ..., "beta_schedule": ..., "zero_terminal_snr": ...},
         DiffusionConfig(predicts="velocity", betas="cosine")),
    ],
)  # fmt: skip
def test_the_noise_is_what_the_settings_say_or_the_references_own(changed, expected, tmp_path):
    settings = VIT | DIFFUSION | changed
    said = {name: value for name, value in settings.items() if value is not ...}
    folder = publish(tmp_path / "4M_tokenizers_rgb_16k", diffuser(), said)
    tokenizer = registry.load(folder, size=64)
    assert isinstance(tokenizer, DiffusionTokenizer)
    assert tokenizer.network.config.diffusion == expected


@pytest.mark.parametrize(
    ("without", "decoder", "reason"),
    [
        (["decoder."], "unet_patched", "its weights have no decoder"),
        ([], "uvit_b_p4_f16_longskip_xattn", "its decoder is 'uvit_b_p4_f16_longskip_xattn'"),
    ],
)
def test_without_a_decoder_that_is_known_it_makes_tokens_and_says_why(
    without, decoder, reason, photographs, tmp_path
):
    network, settings = diffuser(), VIT | DIFFUSION | {"dec_type": decoder}
    folder = publish(tmp_path / "4M_tokenizers_rgb_16k", network, settings, without)
    tokenizer = registry.load(folder, size=64)
    assert isinstance(tokenizer, EncoderOnlyTokenizer)
    tokens = same_as_the_writers(tokenizer, network, pictures(photographs))
    tokenizer.save(tmp_path / "tok_rgb@64")
    again = registry.load(tmp_path / "tok_rgb@64")
    assert isinstance(again, EncoderOnlyTokenizer)
    same_as_the_writers(again, network, pictures(photographs))
    for each in (tokenizer, again):
        with pytest.raises(NoDecoderError, match=f"tok_rgb@64: .*{reason}"):
            each.detokenize(tokens[:, 0])
    photo = [pictures(photographs)[0]], [crop_settings("a", 64, 80, 2)], [(64, 80)], ["a"]
    assert set(evaluate(again, *photo)) == {"codes_used", "perplexity"}


def test_what_a_diffusion_decoder_cannot_be_is_told(tmp_path):
    network, name = diffuser(), "4M_tokenizers_rgb_16k"
    folder = publish(tmp_path / "a" / name, network, VIT | DIFFUSION)
    with pytest.raises(ConfigError, match=r"size 80 is not a multiple of 32, as its decoder"):
        registry.load(folder, size=80)
    settings = VIT | DIFFUSION | {"prediction_type": "flow"}
    folder = publish(tmp_path / "b" / name, network, settings)
    with pytest.raises(ConfigError, match="found prediction_type 'flow', expected one of sample"):
        registry.load(folder, size=64)
    folder = publish(tmp_path / "c" / name, network, VIT | DIFFUSION, ["decoder.middle_block."])
    with pytest.raises(ConfigError, match=r"(?s)not a tokenizer of the reference.*middle_block"):
        registry.load(folder, size=64)


def test_tokens_are_named_as_in_4m_or_as_a_run_looks_for_them(tmp_path):
    classes = transformer(channels=64, labels=134, codes=4096)
    settings = VIT | {"n_channels": 64, "n_labels": 134, "codebook_size": 4096}
    folder = publish(tmp_path / SEMSEG, classes, settings)
    assert registry.load(folder).token_modality == modality("tok_semseg@224")
    config = ImageTokenizerConfig(modality="semseg_coco", vocab_size=4096)
    tokenizer = published.load(folder, name="semseg_coco")
    tokenizer.save(tmp_path / "tokenizers" / token_name(config))
    assert tokenizer.spec.modality == token_name(config) == "tok_semseg_coco@224"
    tokenize = TokenizeConfig(images=(config,))
    assert missing_images(tokenize, tmp_path / "tokenizers") == []


def test_class_maps_and_features_load_with_their_decoder(tmp_path, photographs):
    classes = transformer(channels=64, labels=134)
    settings = VIT | {"n_channels": 64, "n_labels": 134}
    tokenizer = registry.load(publish(tmp_path / SEMSEG, classes, settings))
    assert isinstance(tokenizer, VQTokenizer)
    assert tokenizer.spec.modality == "tok_semseg@224"
    maps = [photo.mean(-1).astype(np.uint8) // 3 for photo in pictures(photographs)]
    tokens = same_as_the_writers(tokenizer, classes, maps)
    decoded = np.stack([np.asarray(each) for each in tokenizer.detokenize(tokens[:, 0])])
    assert decoded.shape == (6, 224, 224)

    features = transformer(channels=512, size=4, patch=1)
    settings = VIT | {"n_channels": 512, "patch_proj": False}
    tokenizer = published.load(publish(tmp_path / CLIP, features, settings), size=64)
    assert (tokenizer.spec.modality, tokenizer.spec.reads) == ("tok_clip@64", "CLIP-B16")
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(512, 4, 5)).astype(np.float16) for _ in range(3)]
    tokens = same_as_the_writers(tokenizer, features, maps)
    expected = features.decode_tokens(torch.from_numpy(tokens[:, 0]).long().view(3, 4, 4))
    found = [np.asarray(each) for each in tokenizer.detokenize(tokens[:, 0])]
    np.testing.assert_allclose(found, expected.detach().half(), rtol=2e-3, atol=1e-4)


def test_vectors_load_from_one_file_with_its_settings_inside(tmp_path):
    network = mlp()
    file = tmp_path / DINO / "model.safetensors"
    file.parent.mkdir()
    state = {name: each.contiguous() for name, each in network.state_dict().items()}
    save_file(state, file, {key: str(value) for key, value in MLP.items()})
    tokenizer = registry.load(file)
    assert tokenizer.spec.modality == "tok_dinov2_global"
    vectors = list(np.random.default_rng(0).normal(size=(5, 768)).astype(np.float32))
    tokens, _ = tokens_of(tokenizer, vectors, [(8, 8)] * 5)
    with torch.inference_mode():
        expected = network.tokenize(torch.from_numpy(np.stack(vectors))[..., None, None])
    np.testing.assert_array_equal(tokens, expected[..., 0, 0])


def test_poses_load_and_their_codes_are_the_writers(tmp_path):
    torch.manual_seed(0)
    shape = {"dim": 32, "encoder_depth": 2, "decoder_depth": 1, "latent": 64}
    network = BottleneckAutoencoder(BottleneckConfig(channels=207, books=8, codes=1024, **shape))
    settings = MLP | {"n_channels": 207, "codebook_size": 1024, "num_codebooks": 8}
    tokenizer = registry.load(publish(tmp_path / POSES, network.eval(), settings))
    assert (tokenizer.spec.modality, tokenizer.spec.reads) == ("tok_body_pose", "body_pose")
    poses = np.random.default_rng(0).uniform(-1, 1, (5, 207)).astype(np.float32)
    tokens, _ = tokens_of(tokenizer, list(poses), [(8, 8)] * 5)
    with torch.inference_mode():
        expected = network.tokenize(torch.from_numpy(poses)[..., None, None])
        decoded = network.decode_tokens(expected)[..., 0, 0]
    np.testing.assert_array_equal(tokens, expected[..., 0, 0])
    np.testing.assert_allclose(np.stack(tokenizer.detokenize(tokens)), decoded, atol=1e-5)
    with pytest.raises(ConfigError, match="for vectors of 207"):
        published.load(tmp_path / POSES, reads="DINOv2-B14-global")


def test_masks_load_with_the_convolutions_of_their_decoder(tmp_path):
    network = transformer(channels=1, latent=64, codes=1024, out_conv=True, post_mlp=False)
    for each in network.decoder.out_conv:
        torch.nn.init.normal_(each.gamma)
        torch.nn.init.normal_(each.norm.bias)
    state = network.state_dict()
    names = {name for name in state if name.startswith("decoder.out_conv.1.")}
    parts = ["dwconv.weight", "dwconv.bias", "norm.weight", "norm.bias", "gamma"]
    parts += [f"pwconv{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")]
    assert names == {f"decoder.out_conv.1.{part}" for part in parts}
    shape = {"codebook_size": 1024, "latent_dim": 64, "post_mlp": False, "out_conv": True}
    # the settings of its training say the size of images; its masks are of 64 pixels
    settings = VIT | shape | {"n_channels": 1, "image_size": 224}
    tokenizer = registry.load(publish(tmp_path / SAM, network, settings))
    assert isinstance(tokenizer, MaskTokenizer)
    assert (tokenizer.spec.modality, tokenizer.spec.max_tokens) == ("tok_sam_mask", 16)
    assert tokenizer.side == 64
    masks = np.random.default_rng(0).random((3, 64, 64)) > 0.5
    tokens = tokenizer.encode(masks)
    with torch.inference_mode():
        expected = network.tokenize(torch.from_numpy(masks)[:, None].float())
        decoded = network.decode_tokens(expected)[:, 0].sigmoid()
    np.testing.assert_array_equal(tokens, expected.flatten(1))
    np.testing.assert_allclose(tokenizer.decode(tokens), decoded, atol=1e-5)
    assert len(np.unique(tokens)) > 3
    tokenizer.save(tmp_path / "tok_sam_mask")
    again = registry.load(tmp_path / "tok_sam_mask")
    assert isinstance(again, MaskTokenizer)
    np.testing.assert_array_equal(again.decode(tokens), tokenizer.decode(tokens))


def test_the_convolutions_compute_what_their_formula_says():
    """The block step by step, in other terms: a window of 7, a norm and an MLP of channels."""
    torch.manual_seed(0)
    block = ConvNeXtBlock(3).double()
    torch.nn.init.normal_(block.gamma)
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    window = torch.nn.functional.pad(x, (3, 3, 3, 3)).unfold(2, 7, 1).unfold(3, 7, 1)
    mixed = (window * block.dwconv.weight[None, :, 0, None, None]).sum((-1, -2))
    mixed = (mixed + block.dwconv.bias[:, None, None]).movedim(1, -1)
    centred = mixed - mixed.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    wide = normed @ block.pwconv1.weight.T + block.pwconv1.bias
    narrow = torch.nn.functional.gelu(wide) @ block.pwconv2.weight.T + block.pwconv2.bias
    torch.testing.assert_close(block(x), x + (block.gamma * narrow).movedim(-1, 1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dec_type": "vit_l_dec"}, "another width"),
        ({"quant_type": "fsq"}, "found quantizer fsq"),
        ({"codebook_size": 128}, "size mismatch"),
        ({"codebook_size": None}, "not a tokenizer of the reference"),
    ],
)
def test_other_tokenizers_of_masks_are_refused(changed, message, tmp_path):
    network = transformer(channels=1, out_conv=True)
    folder = publish(tmp_path / SAM, network, VIT | {"n_channels": 1} | changed)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        registry.load(folder)


def test_a_checkpoint_of_a_training_loads_and_runs_no_code(tmp_path, photographs):
    network = transformer()
    file = tmp_path / "ViTS-ViTS_64.pth"
    names = {"encoder_type": "vit_t_enc", "decoder_type": "vit_t_dec", "quantizer_type": "lucid"}
    settings = {key: VIT[key] for key in ("patch_size", "codebook_size", "latent_dim", "post_mlp")}
    args = argparse.Namespace(domain="rgb", **names, **settings)
    torch.save({"model": network.state_dict(), "args": args, "epoch": 3}, file)
    tokenizer = published.load(file, reads="rgb", size=64)
    same_as_the_writers(tokenizer, network, pictures(photographs))

    torch.save({"model": network.state_dict(), "args": Attack(tmp_path / "ran")}, file)
    with pytest.raises(ConfigError, match="not a tokenizer of the reference"):
        published.load(file, reads="rgb", size=64)
    assert not (tmp_path / "ran").exists()


class Attack:
    """A pickle that makes a file where it is trusted."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codebook_size": 128}, "not a tokenizer of the reference.*size mismatch"),
        ({"norm_codes": False}, "norm_codes False"),
        ({"num_codebooks": 4}, "4 code books"),
        ({"out_conv": True}, "ends in convolutions"),
        ({"dec_type": "vit_l_dec"}, "another width"),
        ({"enc_type": "resnet"}, "found network 'resnet', expected one of vit_s_enc"),
        ({"patch_size": 15}, "size 224 is not a multiple"),
        ({"enc_type": "BottleneckMLP/B_2-Wi_32"}, "expected BottleneckMLP"),
    ],
)
def test_what_is_not_supported_is_told(changed, message, tmp_path):
    folder = publish(tmp_path / "4M_tokenizers_rgb_16k", transformer(), VIT | changed)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        registry.load(folder)


def test_what_is_not_there_or_of_another_modality_is_told(tmp_path, monkeypatch):
    folder = publish(tmp_path / "mine", transformer(), VIT)
    with pytest.raises(ConfigError, match="say which it reads"):
        registry.load(folder)
    with pytest.raises(ConfigError, match="found 1 channels, the tokenizer has 3"):
        published.load(folder, reads="depth")
    with pytest.raises(ConfigError, match="of no class maps"):
        published.load(folder, reads="semseg_coco")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="not a tokenizer of the reference"):
        published.load(folder, reads="rgb")
    with pytest.raises(ConfigError, match="no such file"):
        registry.load(tmp_path / "nothing.safetensors")
    monkeypatch.setenv("FOURMILL_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingPackageError, match=f"hf download {RGB}"):
        registry.load(RGB)


def test_the_digest_of_a_published_tokenizer_is_of_its_settings_and_weights(tmp_path):
    digests = set()
    for settings, value in ((VIT, 0.0), (VIT | {"patch_size": 8}, 0.0), (VIT, 1.0)):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        save_file({"weight": torch.full((2,), value)}, tmp_path / "model.safetensors")
        digests.add(registry.weights_sha256(tmp_path))
    assert len(digests) == 3
