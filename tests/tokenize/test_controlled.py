"""Pictures of tokens by a diffusion model that a ControlNet leads: the same ones, anywhere."""

import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fourmill.manifests.errors import ConfigError, MissingPackageError, NoDecoderError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality
from fourmill.tokenize import registry
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.controlled import ControlledTokenizer
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.diffused import seed_of
from fourmill.tokenize.diffusion import DiffusionConfig
from fourmill.tokenize.drawing import PictureModel, new_controlnet
from fourmill.tokenize.draws import uniforms
from fourmill.tokenize.verify import reconstruction_errors
from fourmill.tokenize.vq import VQTokenizer

pytest.importorskip("diffusers")

from tests.tokenize.picture_model import DRAWING, save_controlnet, save_picture_model

SHAPE = {"channels": 3, "size": 16, "patch": 8, "dim": 16, "latent": 6, "codes": 64}
IDS = torch.arange(5 * 4).view(5, 2, 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model lies, as a hub's would, and the ControlNet beside it."""
    folder = tmp_path_factory.mktemp("weights")
    save_picture_model(folder / "acme" / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOURMILL_WEIGHTS", str(folder))
        save_controlnet(folder / "controlnet", SHAPE["latent"])
    return folder


@pytest.fixture(autouse=True)
def _here(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(weights))
    monkeypatch.setenv("FOURMILL_OFFLINE", "1")


@pytest.fixture(scope="module")
def plain() -> VQTokenizer:
    torch.manual_seed(0)
    network = VQAutoencoder(AutoencoderConfig(encoder_depth=1, decoder_depth=1, **SHAPE))
    return VQTokenizer(modality("rgb"), 16, 8, network)


@pytest.fixture
def tokenizer(plain: VQTokenizer, weights: Path) -> ControlledTokenizer:
    return ControlledTokenizer.of(plain, DRAWING, weights / "controlnet")


def test_saved_and_loaded_it_has_the_same_tokens_and_draws_the_same_pictures(
    tokenizer, plain, photographs, tmp_path
):
    tokenizer.save(tmp_path / "tok_rgb@16")
    again = registry.load(tmp_path / "tok_rgb@16")
    assert isinstance(again, ControlledTokenizer)
    assert again.spec == tokenizer.spec
    assert (again.spec.kind, again.spec.modality) == ("controlled", "tok_rgb@16")
    sizes = [photo.shape[:2] for photo in photographs.values()]
    keys, photos = list(photographs), list(photographs.values())
    crops = [crop_settings(key, *size, 2) for key, size in zip(keys, sizes, strict=True)]
    tokens = plain.tokenize(photos, crops, sizes, keys)
    np.testing.assert_array_equal(again.tokenize(photos, crops, sizes, keys), tokens)
    pictures = tokenizer.detokenize(tokens[:2, 0])
    np.testing.assert_array_equal(again.detokenize(tokens[:2, 0]), pictures)
    for picture in pictures:
        check_label(modality("rgb"), picture)
        assert picture.shape == (16, 16, 3)
    assert np.std(pictures) > 1
    again.save(tmp_path / "again")
    assert registry.weights_sha256(tmp_path / "again") == registry.weights_sha256(
        tmp_path / "tok_rgb@16"
    )
    assert registry.decoding_sha256(tmp_path / "again") == registry.decoding_sha256(
        tmp_path / "tok_rgb@16"
    )
    assert tokenizer.detokenize(np.zeros((0, 4), np.int16)) == []
    # one that came without its ControlNet still makes tokens, and can be kept
    shutil.rmtree(tmp_path / "again" / "controlnet")
    registry.load(tmp_path / "again").save(tmp_path / "half")
    half = registry.load(tmp_path / "half")
    np.testing.assert_array_equal(half.tokenize(photos, crops, sizes, keys), tokens)


def test_another_controlnet_is_another_decoder_of_the_same_tokens(tokenizer, plain, tmp_path):
    tokenizer.save(tmp_path / "tok_rgb@16")
    lineage, decoder = (
        each(tmp_path / "tok_rgb@16")
        for each in (registry.weights_sha256, registry.decoding_sha256)
    )
    (file,) = (tmp_path / "tok_rgb@16" / "controlnet").glob("*.safetensors")
    save_file({name: each * 0.5 for name, each in load_file(file).items()}, file)
    assert registry.weights_sha256(tmp_path / "tok_rgb@16") == lineage
    assert registry.decoding_sha256(tmp_path / "tok_rgb@16") != decoder
    plain.save(tmp_path / "plain")
    assert registry.decoding_sha256(tmp_path / "plain") == registry.weights_sha256(
        tmp_path / "plain"
    )


def test_a_picture_is_the_same_whatever_is_drawn_with_it_and_in_what_order(tokenizer):
    together = tokenizer.decode(IDS)
    assert torch.equal(tokenizer.decode(IDS[[3]])[0], together[3])
    assert torch.equal(tokenizer.decode(IDS.flip(0)).flip(0), together)


def test_codes_lead_the_picture_and_the_seed_says_which_of_those_that_fit(tokenizer):
    first, second, again = tokenizer.decode_with(IDS[:1].expand(3, 2, 2), [1, 2, 1])
    assert torch.equal(first, again)
    assert (first - second).abs().mean() > 1e-3
    other = tokenizer.decode_with(IDS[1:2], [1])[0]
    assert (first - other).abs().mean() > 1e-5  # little in so small a model, and no rounding
    assert torch.equal(tokenizer.decode_with(IDS[:1], [seed_of(IDS[0])]), tokenizer.decode(IDS[:1]))
    with pytest.raises(ConfigError, match="found 2 seeds, expected one for each of 1"):
        tokenizer.decode_with(IDS[:1], [1, 2])
    with pytest.raises(ConfigError, match="found ids 0 to 64, expected 0 to 63"):
        tokenizer.decode_with(torch.tensor([[[0, 64], [0, 0]]]), [1])


def test_a_new_controlnet_adds_nothing_to_what_the_model_draws(plain):
    model = PictureModel(DRAWING)
    fresh = ControlledTokenizer.of(plain, DRAWING, new_controlnet(model, 6), model)
    one, other = fresh.decode_with(IDS[:2], [4, 4])
    assert torch.equal(one, other)


def test_making_tokens_never_takes_what_draws_them(tokenizer, plain, photographs):
    key = next(
        f"{n}" for n in itertools.count() if uniforms(1, "decoded again", f"{n}")[0] < 1 / 1024
    )
    photo = photographs["coffee"]
    size = photo.shape[:2]
    inputs = [photo], [crop_settings(key, *size, 2)], [size], [key]
    tokens = plain.tokenize(*inputs)
    assert list(reconstruction_errors(plain, *inputs, tokens)) == [0]
    assert reconstruction_errors(tokenizer, *inputs, tokens) == {}


def test_guidance_goes_further_from_what_is_drawn_without_codes(tokenizer):
    def drawn(guidance: float) -> torch.Tensor:
        drawing = DRAWING.model_copy(update={"guidance": guidance})
        return tokenizer.drawn_by(drawing).decode_with(IDS[:2], [4, 4])

    free, led, further = (drawn(each) for each in (0.0, 1.0, 3.0))
    assert torch.equal(free[0], free[1])
    assert torch.equal(led, tokenizer.decode_with(IDS[:2], [4, 4]))
    assert not torch.equal(further, led)


def test_it_is_for_other_sizes_and_draws_as_large_as_before(tokenizer):
    larger = tokenizer.at_size(24)
    assert larger.spec.modality == "tok_rgb@24"
    (picture,) = larger.detokenize(np.arange(9, dtype=np.int16)[None])
    assert picture.shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
            DiffusionConfig(betas="scaled_linear", predicts="noise", zero_snr=False),
        ),
        (
            {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction",
             "rescale_betas_zero_snr": True, "num_train_timesteps": 500},
            DiffusionConfig(betas="cosine", predicts="velocity", steps=500),
        ),
        ({}, DiffusionConfig(predicts="noise", zero_snr=False)),
    ],
)  # fmt: skip
def test_noise_is_that_of_the_models_scheduler(settings, expected):
    assert DiffusionConfig.of_diffusers(settings) == expected


def test_what_does_not_fit_is_told(tokenizer, plain, weights, tmp_path, monkeypatch):
    def drawing(**changes):
        return DRAWING.model_copy(update=changes)

    def refuse(message, drawing=DRAWING, controlnet=weights / "controlnet", kind=ConfigError):
        with pytest.raises(kind, match=message):
            ControlledTokenizer.of(plain, drawing, controlnet).decode(IDS[:1])

    refuse("found side 30, expected a multiple of 4", drawing(side=30))
    refuse("no ControlNet", controlnet=tmp_path / "nowhere", kind=NoDecoderError)
    refuse(
        "run `hf download acme/nothing`", drawing(model="acme/nothing"), kind=MissingPackageError
    )
    save_controlnet(tmp_path / "wider", latent=7)
    refuse("conditioning_channels 7, expected 6", controlnet=tmp_path / "wider")
    save_picture_model(tmp_path / "odd", beta_end=0.5)
    refuse("beta_end': 0.5", drawing(model=str(tmp_path / "odd")))
    file = save_picture_model(tmp_path / "less") / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors.pop("conv_out.bias")
    save_file(tensors, file)
    refuse("1 are missing or unknown, conv_out.bias first", drawing(model=str(tmp_path / "less")))
    file.rename(file.with_suffix(".bin"))  # nothing is unpickled
    refuse("not a UNet2DConditionModel", drawing(model=str(tmp_path / "less")))
    with pytest.raises(ConfigError, match="draws pictures"):
        ControlledTokenizer(modality("depth"), 16, 8, plain.network, drawing=DRAWING)
    tokenizer.save(tmp_path / "spec")
    spec = json.loads((tmp_path / "spec" / "spec.json").read_text())
    del spec["config"]["drawing"]["model"]
    (tmp_path / "spec" / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match="model"):
        registry.load(tmp_path / "spec")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    refuse(r"pip install 'fourmill\[diffusion\]'", kind=MissingPackageError)
