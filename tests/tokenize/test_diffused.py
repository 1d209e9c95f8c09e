"""A tokenizer that decodes by diffusion: one picture for the same tokens, at any size, anywhere."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality
from fourmill.tokenize import registry, verify
from fourmill.tokenize.autoencoder import AutoencoderConfig, EncoderConfig, VQAutoencoder
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.diffused import DiffusionTokenizer, seed_of
from fourmill.tokenize.diffusion import DiffusionConfig, Sampling
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.tokenize.evaluate import evaluate
from fourmill.tokenize.unet import UNetConfig
from fourmill.tokenize.uvit import UViT, UViTConfig
from fourmill.tokenize.vq import VQTokenizer

pytest.importorskip("diffusers")

SMALL = {"width": 8, "factors": (1, 2), "depth": 1, "groups": 4}
UNET = UNetConfig(**SMALL, attention=(1,))
# two levels of cells of 2 pixels: its transformer has a cell a token of 8
UVIT = UViTConfig(**SMALL, patch=2, dim=16, blocks=2, heads=2)
FEW = Sampling(steps=3, at_once=2)
VELOCITY = DiffusionConfig(predicts="velocity", betas="shifted_cosine:0.5")
DENOISERS = [{"unet": UNET}, {"uvit": UVIT, "diffusion": VELOCITY}]


def random_weights(module, seed=0):
    """A new denoiser predicts nothing but zeros."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        # as large as keeps activations as large as they are
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    return module


def tokenizer_of(name="rgb", sampling=FEW, denoiser=DENOISERS[0], **encoder):
    definition = modality(name)
    shape = {"channels": definition.channels, "size": 16, "patch": 8, "dim": 16, "codes": 64}
    torch.manual_seed(0)
    config = DiVAEConfig(encoder=EncoderConfig(**shape | encoder), **denoiser)
    network = random_weights(DiVAE(config))
    return DiffusionTokenizer(definition, config.encoder.size, 8, network, sampling=sampling)


def tokens_of(tokenizer, photographs):
    sizes = [photo.shape[:2] for photo in photographs.values()]
    keys = list(photographs)
    crops = [crop_settings(key, *size, 2) for key, size in zip(keys, sizes, strict=True)]
    return tokenizer.tokenize(list(photographs.values()), crops, sizes, keys)


@pytest.mark.parametrize("denoiser", DENOISERS, ids=["unet", "uvit"])
def test_saved_and_loaded_it_makes_the_same_tokens_and_pictures(denoiser, photographs, tmp_path):
    tokenizer = tokenizer_of(denoiser=denoiser)
    tokenizer.save(tmp_path / "tok_rgb@16")
    again = registry.load(tmp_path / "tok_rgb@16")
    assert isinstance(again, DiffusionTokenizer)
    assert (again.spec, again.sampling) == (tokenizer.spec, FEW)
    assert (again.spec.kind, again.spec.modality) == ("diffusion", "tok_rgb@16")
    tokens = tokens_of(tokenizer, photographs)
    np.testing.assert_array_equal(tokens_of(again, photographs), tokens)
    assert len(np.unique(tokens)) > 3
    pictures = tokenizer.detokenize(tokens[:, 0])
    np.testing.assert_array_equal(again.detokenize(tokens[:, 0]), pictures)
    check_label(tokenizer.definition, pictures[0])
    assert np.std(pictures) > 1


@pytest.mark.parametrize("name", ["rgb", "depth", "normal", "canny_edge"])
def test_it_gives_labels_of_each_kind_that_it_is_for(name):
    tokenizer = tokenizer_of(name)
    labels = tokenizer.detokenize(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]))
    for label in labels:
        check_label(tokenizer.definition, label)
        assert label.shape[:2] == (16, 16)
    assert not np.array_equal(*labels)
    assert tokenizer.detokenize(np.zeros((0, 4), np.int16)) == []


def test_a_decoding_is_the_same_whatever_is_decoded_with_it_and_in_what_order():
    tokenizer = tokenizer_of()
    ids = torch.arange(5 * 4).view(5, 2, 2)
    together = tokenizer.decode(ids)
    for index in range(5):
        assert torch.equal(tokenizer.decode(ids[[index]])[0], together[index])
    assert torch.equal(tokenizer.decode(ids.flip(0)).flip(0), together)
    assert torch.equal(tokenizer.decode(ids[[3, 3, 3]]), together[[3, 3, 3]])


def test_other_seeds_give_other_pictures_of_the_same_tokens():
    tokenizer = tokenizer_of()
    ids = torch.arange(4).view(1, 2, 2)
    first, second, again = tokenizer.decode_with(ids.expand(3, 2, 2), [1, 2, 1])
    assert torch.equal(first, again)
    assert (first - second).abs().mean() > 1e-3
    assert torch.equal(tokenizer.decode_with(ids, [seed_of(ids[0])]), tokenizer.decode(ids))
    with pytest.raises(ConfigError, match="found 2 seeds, expected one for each of 1"):
        tokenizer.decode_with(ids, [1, 2])
    with pytest.raises(ConfigError, match="found ids 0 to 64, expected 0 to 63"):
        tokenizer.decode_with(torch.tensor([[[0, 64]]]), [1])


def test_seeds_come_from_all_tokens_and_their_places():
    ids = torch.arange(4).view(2, 2)
    others = [ids.T, ids.view(1, 4), ids + 1, ids.flip(0)]
    seeds = [seed_of(each) for each in [ids, *others]]
    assert seeds[0] == seed_of(ids.to(torch.int16)) == seeds[2]  # row by row, whatever the dtype
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_another_way_to_decode_changes_the_pictures_and_not_the_tokens(photographs, tmp_path):
    tokenizer = tokenizer_of()
    other = tokenizer.sampled_by(Sampling(sampler="dpm", steps=4, clip=True))
    tokens = tokens_of(tokenizer, photographs)
    np.testing.assert_array_equal(tokens_of(other, photographs), tokens)
    ids = torch.from_numpy(tokens[:1, 0]).long().view(1, 2, 2)
    assert not torch.equal(other.decode(ids), tokenizer.decode(ids))
    assert other.decode(ids).abs().max() <= 1  # what is clipped at the last step stays so
    other.save(tmp_path / "other")
    again = registry.load(tmp_path / "other")
    assert torch.equal(again.decode(ids), other.decode(ids))


@pytest.mark.parametrize("denoiser", DENOISERS, ids=["unet", "uvit"])
def test_it_loads_at_another_size_with_the_same_weights(denoiser, photographs, tmp_path):
    tokenizer = tokenizer_of(denoiser=denoiser)
    tokenizer.save(tmp_path / "tok_rgb@16")
    larger = registry.load(tmp_path / "tok_rgb@16", size=24)
    assert isinstance(larger, DiffusionTokenizer)
    assert (larger.spec.modality, larger.spec.max_tokens) == ("tok_rgb@24", 9)
    assert (larger.token_modality.name, larger.sampling) == ("tok_rgb@24", FEW)
    # networks that are not made for a size interpolate their positions in every pass
    image = torch.linspace(-1, 1, 3 * 24 * 24).view(1, 3, 24, 24)
    ids = tokenizer.network.tokenize(image)
    assert torch.equal(larger.encode(image), ids)
    torch.testing.assert_close(
        larger.decode_with(ids, [7]), tokenizer.network.decode_tokens(ids, [7], FEW)
    )
    assert larger.detokenize(tokens_of(larger, photographs)[:, 0])[0].shape == (24, 24, 3)

    larger.save(tmp_path / "tok_rgb@24")
    again = registry.load(tmp_path / "tok_rgb@24", size=24)
    assert torch.equal(again.decode(ids), larger.decode(ids))
    np.testing.assert_array_equal(
        tokens_of(registry.load(tmp_path / "tok_rgb@16", size=16), photographs),
        tokens_of(tokenizer, photographs),
    )


def test_other_grids_load_at_another_size_too_and_what_has_no_grid_says_so(
    photographs, vocabulary, tmp_path
):
    torch.manual_seed(0)
    shape = {"channels": 3, "size": 16, "patch": 8, "dim": 16, "codes": 64}
    VQTokenizer(modality("rgb"), 16, 8, VQAutoencoder(AutoencoderConfig(**shape))).save(
        tmp_path / "tok_rgb@16"
    )
    larger = registry.load(tmp_path / "tok_rgb@16", size=32)
    tokens = tokens_of(larger, photographs)
    assert tokens.shape == (6, 2, 16)
    assert larger.detokenize(tokens[:, 0])[0].shape == (32, 32, 3)
    texts = registry.save_text_tokenizers(tmp_path, vocabulary, ["caption"])
    with pytest.raises(ConfigError, match=r"tok_caption: found size 32, .* no size"):
        registry.load(texts["caption"], size=32)


def test_sizes_that_it_cannot_have_are_refused_with_the_reason(tmp_path):
    deeper = UNetConfig(**SMALL | {"factors": (1, 2, 2)}, attention=())
    tokenizer_of(denoiser={"unet": deeper}).save(tmp_path / "tok_rgb@16")
    for size in (20, 0, -8):
        with pytest.raises(ConfigError, match=f"tok_rgb@16: found size {size}, .* 8 pixels"):
            registry.load(tmp_path / "tok_rgb@16", size=size)
    with pytest.raises(
        ConfigError, match="tok_rgb@16: size 24: found size 24, expected a multiple of 16"
    ):
        registry.load(tmp_path / "tok_rgb@16", size=24)


@pytest.mark.parametrize("name", ["semseg_coco", "CLIP-B16"])
def test_kinds_that_noise_does_not_suit_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name}: found .*; diffusion decodes image, depth, nor"):
        tokenizer_of(name)


def test_a_damaged_folder_and_a_wrong_way_to_decode_are_told(tmp_path):
    folder = tmp_path / "tok_rgb@16"
    tokenizer_of().save(folder)
    spec = folder / "spec.json"
    spec.write_text(spec.read_text().replace('"ddim"', '"euler"'))
    with pytest.raises(ConfigError, match="not a diffusion tokenizer"):
        registry.load(folder)


def test_it_is_judged_as_others_are(photographs):
    sizes = [photo.shape[:2] for photo in photographs.values()]
    crops = [crop_settings(key, *photographs[key].shape[:2], 1) for key in photographs]
    found = evaluate(tokenizer_of(), list(photographs.values()), crops, sizes, list(photographs))
    assert set(found) >= {"psnr", "codes_used", "perplexity"}


def test_scalar_levels_do_for_a_code_book_and_the_encoder_learns_through_them():
    tokenizer = tokenizer_of(levels=(4, 4, 4), latent=3)
    assert tokenizer.decode(torch.tensor([[[0, 63], [1, 2]]])).shape == (1, 3, 16, 16)
    network = tokenizer.network.requires_grad_(True)
    noisy, steps = torch.ones(2, 3, 16, 16), torch.tensor([5, 500])
    loss, _, _ = network.loss(noisy, noisy, steps)
    loss.backward()
    assert network.quant_proj.weight.grad.abs().sum() > 0


def test_a_transformer_that_denoises_gets_gradients_everywhere_and_knows_step_and_codes():
    network = random_weights(UViT(UVIT, channels=3, latent=4, grid=2))
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 3, 16, 16, generator=generator)
    codes = torch.randn(2, 4, 2, 2, generator=generator)
    predicted = network(noisy, torch.tensor([3, 30]), codes)
    assert predicted.shape == noisy.shape
    predicted.square().mean().backward()
    learned = {name: each for name, each in network.named_parameters() if each.requires_grad}
    assert set(network.state_dict()) - set(learned) == {"middle.pos_emb"}
    assert [name for name, each in learned.items() if not each.grad.abs().sum() > 0] == []
    with torch.inference_mode():
        for changed in (
            network(noisy, torch.tensor([4, 30]), codes),
            network(noisy, torch.tensor([3, 30]), codes.roll(1, dims=2)),
        ):
            assert (changed - predicted)[0].abs().mean() > 1e-4
    with pytest.raises(ValueError, match="found 16x12 pixels, expected multiples of 8"):
        network(noisy[..., :12], torch.tensor([3, 30]), codes)


def test_a_new_transformer_that_denoises_predicts_zeros():
    network = UViT(UVIT, channels=3, latent=4, grid=2)
    predicted = network(torch.ones(1, 3, 24, 24), torch.tensor([3]), torch.ones(1, 4, 3, 3))
    assert predicted.eq(0).all()


def test_one_denoiser_is_chosen_and_fits_the_tokens():
    encoder = EncoderConfig(channels=3, size=16, patch=8, dim=16)
    assert DiVAEConfig(encoder=encoder.resized(32)).denoiser == UNetConfig()
    chosen = DiVAEConfig(encoder=encoder, uvit=UVIT)
    assert DiVAEConfig.model_validate_json(chosen.model_dump_json()) == chosen
    assert "unet" not in chosen.model_dump()
    with pytest.raises(ValidationError, match="found unet and uvit, expected one"):
        DiVAEConfig(encoder=encoder, unet=UNET, uvit=UVIT)
    other = UVIT.model_copy(update={"patch": 4})
    with pytest.raises(ValidationError, match="cells of 16 pixels, expected the tokens' 8"):
        DiVAEConfig(encoder=encoder, uvit=other)


def test_without_diffusers_it_makes_tokens_and_says_what_pictures_need(photographs, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    tokenizer = tokenizer_of()
    tokens = tokens_of(tokenizer, photographs)
    with pytest.raises(MissingPackageError, match=r"fourmill\[diffusion\]"):
        tokenizer.detokenize(tokens[:, 0])
    # a run that makes tokens decodes a few again, where it can
    monkeypatch.setattr(verify, "_SHARE_OF_SLOW", 1)
    photo = photographs["chelsea"]
    crops = [crop_settings("chelsea", *photo.shape[:2], 2)]
    drawn = tokenizer, [photo], crops, [photo.shape[:2]], ["chelsea"], tokens[[1]]
    assert verify.reconstruction_errors(*drawn) == {}
    monkeypatch.undo()
    monkeypatch.setattr(verify, "_SHARE_OF_SLOW", 1)
    assert set(verify.reconstruction_errors(*drawn)) == {0}


def test_a_modality_of_ones_own_is_decoded_by_its_kind():
    definition = replace(modality("saliency"), name="attention")
    network = tokenizer_of("saliency").network
    tokenizer = DiffusionTokenizer(definition, 16, 8, network, sampling=FEW)
    assert tokenizer.spec.modality == "tok_attention@16"
    assert tokenizer.detokenize(np.zeros((1, 4), np.int16))[0].shape == (16, 16)
