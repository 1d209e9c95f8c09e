"""What noise hides comes back: in any number of steps, in any batch, with any sampler."""

import sys
from importlib import import_module
from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.tokenize.diffusion import Diffusion, DiffusionConfig, Sampling, steps_of

# made of lazy imports, which a type checker takes for something else
DIFFUSERS: Any = import_module("diffusers")
BETAS_OF_DIFFUSERS = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
KINDS = [
    {"betas": betas, "predicts": predicts, "zero_snr": zero_snr}
    for betas, predicts, zero_snr in product(
        ["linear", "cosine", "shifted_cosine:0.5"], ["image", "noise", "velocity"], [False, True]
    )
    if not (zero_snr and predicts == "noise")
]
SAMPLERS = ["ddpm", "ddim", "dpm"]
SHAPE = (3, 4, 4)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def of_normal_values(diffusion, mean, deviation):
    """The best denoiser there is for pixels of this mean and deviation; it predicts the image."""

    def denoiser(noisy, steps, latents):
        kept = diffusion.kept[steps][:, None, None, None]
        share = kept.sqrt() * deviation**2 / (kept * deviation**2 + 1 - kept)
        return mean + share * (noisy - kept.sqrt() * mean)

    return denoiser


@pytest.mark.parametrize("betas", BETAS_OF_DIFFUSERS)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_the_noise_of_each_step_is_that_of_diffusers(betas, zero_snr):
    expected = DIFFUSERS.DDPMScheduler(
        **BETAS_OF_DIFFUSERS[betas], rescale_betas_zero_snr=zero_snr
    ).alphas_cumprod
    found = Diffusion(DiffusionConfig(betas=betas, zero_snr=zero_snr)).kept
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shift", [0.25, 1.0, 2.0])
def test_a_shift_divides_the_ratio_of_signal_to_noise_by_its_square(shift):
    config = DiffusionConfig(betas=f"shifted_cosine:{shift}", steps=101, zero_snr=False)
    kept = Diffusion(config).kept.double()
    turns = torch.linspace(0, 1, 101, dtype=torch.float64) * torch.pi / 2
    found, plain = kept / (1 - kept), turns.cos() ** 2 / turns.sin() ** 2
    middle = slice(5, 96)
    torch.testing.assert_close(found[middle], plain[middle] / shift**2, rtol=1e-4, atol=0)
    assert (kept.diff() <= 0).all()
    # the first and the last ratio would be infinite and 0: their logarithm is kept within 15
    torch.testing.assert_close(kept[-1].log(), torch.tensor(-15.0).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close((1 - kept[0]).log(), torch.tensor(-15.0).double(), rtol=0, atol=0.1)
    silent = Diffusion(config.model_copy(update={"zero_snr": True})).kept.double()
    assert torch.equal(silent[:-1], kept[:-1])
    assert silent[-1] == 0


@pytest.mark.parametrize("betas", ["sigmoid", "shifted_cosine", "shifted_cosine:0", "cosine:0.5"])
def test_schedules_that_there_are_not_are_refused_with_those_that_there_are(betas):
    with pytest.raises(ValidationError, match="expected one of linear, scaled_linear, cosine or "):
        DiffusionConfig(betas=betas)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_prediction_is_the_image(kind):
    diffusion = Diffusion(DiffusionConfig(**kind))
    steps = torch.tensor([0, 300, 600])
    values, noise = randn(3, *SHAPE), randn(3, *SHAPE, seed=1)
    noisy = diffusion.noisy(values, noise, steps)
    clean = diffusion.clean(diffusion.target(values, noise, steps), noisy, steps)
    torch.testing.assert_close(clean, values, rtol=0, atol=1e-4)


def test_with_no_signal_left_at_the_end_the_last_step_is_the_noise():
    values, noise, steps = randn(1, *SHAPE), randn(1, *SHAPE, seed=1), torch.tensor([999])
    assert torch.equal(Diffusion(DiffusionConfig()).noisy(values, noise, steps), noise)
    leaky = Diffusion(DiffusionConfig(zero_snr=False))
    assert not torch.equal(leaky.noisy(values, noise, steps), noise)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_who_knows_the_image_gets_it_in_any_number_of_steps(kind, sampler, count):
    diffusion = Diffusion(DiffusionConfig(**kind))
    image = randn(2, *SHAPE)

    def oracle(noisy, steps, latents):
        kept = diffusion.kept[steps][:, None, None, None]
        noise = (noisy - kept.sqrt() * image) / (1 - kept).sqrt()
        return diffusion.target(image, noise, steps)

    sampling = Sampling(sampler=sampler, steps=count, at_once=2)
    found = diffusion.sample(oracle, torch.zeros(2, 1, 1, 1), SHAPE, [5, 6], sampling)
    # one step from almost pure noise divides rounding by the signal left there
    bound = 1e-2 if kind["predicts"] == "noise" else 1e-5
    torch.testing.assert_close(found, image, rtol=0, atol=bound)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_samples_spread_as_the_values_do(sampler, zero_snr):
    diffusion = Diffusion(DiffusionConfig(zero_snr=zero_snr))
    denoiser = of_normal_values(diffusion, mean=0.4, deviation=0.3)
    # in few steps ddpm adds too little noise
    sampling = Sampling(sampler=sampler, steps=1000 if sampler == "ddpm" else 200, at_once=1)
    found = diffusion.sample(denoiser, torch.zeros(1, 1, 1, 1), (1, 128, 128), [0], sampling)
    # 16,384 values: the error of their mean is 0.0023 and of their deviation 0.0017
    assert abs(found.mean() - 0.4) < 0.01
    assert abs(found.std() - 0.3) < 0.01


def test_a_clipped_sample_is_within_bounds_and_no_other_where_nothing_is_beyond():
    diffusion = Diffusion(DiffusionConfig())

    def sampled(mean, clip):
        denoiser = of_normal_values(diffusion, mean=mean, deviation=0.01)
        sampling = Sampling(steps=5, at_once=1, clip=clip)
        return diffusion.sample(denoiser, torch.zeros(1, 1, 1, 1), SHAPE, [0], sampling)

    assert sampled(1.5, clip=False).min() > 1.4
    assert sampled(1.5, clip=True).eq(1).all()
    assert torch.equal(sampled(0.5, clip=True), sampled(0.5, clip=False))


def test_ddim_is_the_one_of_diffusers_where_that_is_exact():
    diffusion = Diffusion(DiffusionConfig(zero_snr=False))
    denoiser = of_normal_values(diffusion, mean=0.4, deviation=0.3)
    sampling = Sampling(sampler="ddim", steps=20, spacing="even", at_once=1)
    found = diffusion.sample(denoiser, torch.zeros(1, 1, 1, 1), SHAPE, [3], sampling)

    theirs = DIFFUSERS.DDIMScheduler(
        prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    expected = randn(1, *SHAPE, seed=3)
    for step in theirs.timesteps:
        clean = denoiser(expected, step[None], None)
        expected = theirs.step(clean, step, expected).prev_sample
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_ten_steps_get_nearer_to_the_end_of_a_thousand_by_dpm_and_by_quadratic_spacing():
    diffusion = Diffusion(DiffusionConfig())
    denoiser = of_normal_values(diffusion, mean=0.4, deviation=0.3)

    def samples(**settings):
        sampling = Sampling(**settings, at_once=1)
        return diffusion.sample(denoiser, torch.zeros(1, 1, 1, 1), SHAPE, [0], sampling)

    exact = samples(sampler="dpm", steps=1000)

    def error(sampler, spacing):
        return (samples(sampler=sampler, steps=10, spacing=spacing) - exact).abs().mean()

    assert error("dpm", "quadratic") < error("ddim", "quadratic") / 3
    assert error("ddim", "quadratic") < error("ddim", "even") / 2


@pytest.mark.parametrize("spacing", ["even", "quadratic"])
def test_steps_go_down_from_the_last_one_without_repeating(spacing):
    fourths = {"even": [999, 749, 499, 249], "quadratic": [999, 561, 249, 61]}
    assert steps_of(Sampling(steps=4, spacing=spacing), 1000) == fourths[spacing]
    for count in range(1, 101):
        found = steps_of(Sampling(steps=count, spacing=spacing), 100)
        assert len(found) == count
        assert found[0] == 99
        assert found == sorted(set(found), reverse=True)
        assert found[-1] >= 0


def test_the_fewest_and_the_most_that_can_be_asked_for_are_said():
    diffusion = Diffusion(DiffusionConfig(steps=10))
    denoiser = of_normal_values(diffusion, mean=0.0, deviation=1.0)
    latents = torch.zeros(2, 1, 1, 1)
    with pytest.raises(ConfigError, match="11 steps of sampling, expected at most the 10"):
        diffusion.sample(denoiser, latents, SHAPE, [0, 1], Sampling(steps=11))
    with pytest.raises(ConfigError, match="1 seeds, expected one for each of 2"):
        diffusion.sample(denoiser, latents, SHAPE, [0], Sampling(steps=5))
    assert diffusion.sample(denoiser, latents[:0], SHAPE, [], Sampling(steps=5)).shape == (
        0,
        3,
        4,
        4,
    )
    with pytest.raises(ValidationError, match="predict image or velocity"):
        DiffusionConfig(predicts="noise")


@pytest.mark.parametrize("predicts", ["image", "noise", "velocity"])
def test_the_loss_is_the_mean_square_of_what_is_predicted(predicts):
    diffusion = Diffusion(DiffusionConfig(predicts=predicts, zero_snr=False))
    values, noise, steps = randn(2, *SHAPE), randn(2, *SHAPE, seed=1), torch.tensor([10, 700])
    target = diffusion.target(values, noise, steps)
    batch = (values, torch.zeros(2, 1, 1, 1), noise, steps)
    assert diffusion.loss(lambda *_: target, *batch) == 0
    assert diffusion.loss(lambda *_: target, *batch, cap=5.0) == 0
    found = diffusion.loss(lambda *_: target + 0.5, *batch)
    torch.testing.assert_close(found, torch.tensor(0.25))


@pytest.mark.parametrize("predicts", ["image", "noise", "velocity"])
def test_a_capped_loss_is_the_same_whatever_is_predicted(predicts):
    diffusion = Diffusion(DiffusionConfig(predicts=predicts, zero_snr=False))
    values, noise, steps = randn(2, *SHAPE), randn(2, *SHAPE, seed=1), torch.tensor([10, 700])
    wrong = values + 0.1

    def denoiser(noisy, steps, latents):
        kept = diffusion.kept[steps][:, None, None, None]
        return diffusion.target(wrong, (noisy - kept.sqrt() * wrong) / (1 - kept).sqrt(), steps)

    found = diffusion.loss(denoiser, values, torch.zeros(2, 1, 1, 1), noise, steps, cap=5.0)
    few = diffusion.kept[700] / (1 - diffusion.kept[700])
    assert few < 5 < diffusion.kept[10] / (1 - diffusion.kept[10])
    torch.testing.assert_close(found, (5.0 + few) / 2 * 0.01, rtol=1e-3, atol=0)


def test_without_diffusers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    diffusion = Diffusion(DiffusionConfig())
    with pytest.raises(MissingPackageError, match=r"fourmill\[diffusion\]"):
        diffusion.sample(lambda noisy, *_: noisy, torch.zeros(1, 1, 1, 1), SHAPE, [0], Sampling())
