"""Guidance does what it says, on a small model that was trained on a relation that is known."""

from dataclasses import replace

import pytest
import torch
from tests.train import toy

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.train.conditions import Conditions
from fourmill.train.config import MaskingConfig
from fourmill.train.domains import Domains
from fourmill.train.generate import generate
from fourmill.train.guidance import predict, shares_without, sides_of
from fourmill.train.masking import Masking
from fourmill.train.model import FourM
from fourmill.train.schedules import GenerationStep, Scheme, guidance_share

A, B, TARGET, TEXT = (each.name for each in (toy.A, toy.B, toy.TARGET, toy.TEXT))


@pytest.fixture(scope="module")
def model() -> FourM:
    torch.set_num_threads(1)
    return toy.train(registers=2)


def step_of(scheme: Scheme, **options: object) -> GenerationStep:
    target = TEXT if scheme == "autoregressive" else TARGET
    return GenerationStep(target, scheme, 2, temperature=1.0, **options)  # type: ignore[arg-type]


def opinions(model: FourM, step: GenerationStep) -> tuple[float, float]:
    """Shares of what was generated that are what A says, and what B says."""
    made = generate(model, toy.two_opinions(64), [step], seed=1)[step.target]
    said = made if step.target == TARGET else made[:, :5] - toy.FIRST_WORD
    return float((said == 2).float().mean()), float((said == 5).float().mean())


SCHEMES: list[Scheme] = ["maskgit", "roar", "autoregressive"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_larger_weight_follows_a_condition_and_a_negative_one_leads_away(
    model: FourM, scheme: Scheme
) -> None:
    shares = [
        opinions(model, step_of(scheme, weights={A: weight, B: 0.0}))[0]
        for weight in (-2.0, 0.0, 1.0, 3.0)
    ]
    assert shares[0] < shares[1] < shares[2] - 0.15
    assert shares[0] < 0.05
    # a grid that sees what it filled before agrees with itself, and has little left to gain
    assert shares[3] > shares[2] - (0.05 if scheme == "maskgit" else 0)
    assert shares[3] > 0.45


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_condition_has_its_own_weight(model: FourM, scheme: Scheme) -> None:
    of_a, of_b = (
        opinions(model, step_of(scheme, weights=weights))
        for weights in ({A: 2.0, B: -1.0}, {A: -1.0, B: 2.0})
    )
    assert of_a[0] > of_a[1] + 0.2
    assert of_b[1] > of_b[0] + 0.2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_guidance_by_one_condition_is_the_weight_of_it(model: FourM, scheme: Scheme) -> None:
    conditions = toy.two_opinions(8).without([B])
    found = [
        generate(model, conditions, [step], seed=4)[step.target]
        for step in (step_of(scheme, guidance=2.5), step_of(scheme, weights={A: 2.5}))
    ]
    assert torch.equal(*found)


def test_what_is_not_weighted_is_seen_in_any_case(model: FourM) -> None:
    both = toy.two_opinions(4)
    sides = sides_of(step_of("roar", weights={A: 3.0}), both, ())
    assert [each.conditions.names for each in sides] == [(B,), (A, B)]
    assert [each.weight(step_of("roar"), 1) for each in sides] == [-2.0, 3.0]
    nothing = sides_of(step_of("roar", weights={A: 0.0, B: 1.0}), both, ())
    assert [each.conditions.names for each in nothing] == [(B,)]  # all others have no weight


@torch.no_grad()
def test_predictions_are_those_of_the_sides_summed(model: FourM) -> None:
    conditions = toy.two_opinions(3)
    place = torch.arange(16).expand(3, -1)

    def scores(step: GenerationStep, known: Conditions) -> torch.Tensor:
        return predict(model, step, sides_of(step, known, ()), place)

    plain = step_of("roar")
    parts = [scores(plain, conditions.without(names)) for names in ([A, B], [B], [A])]
    expected = parts[0] + 1.5 * (parts[1] - parts[0]) - 0.5 * (parts[2] - parts[0])
    found = scores(step_of("roar", weights={A: 1.5, B: -0.5}), conditions)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_finished_targets_are_guided_by_or_not(model: FourM) -> None:
    conditions = toy.two_opinions(4)
    step = step_of("roar", guidance=3.0)
    assert sides_of(step, conditions, [B])[1].conditions.names == ()
    kept = replace(step, grow=False)
    assert sides_of(kept, conditions, [B])[1].conditions.names == (B,)
    first = GenerationStep(B, "maskgit")
    chains = [
        generate(model, conditions.without([B]), [first, each], seed=2)[TARGET]
        for each in (kept, step_of("roar", weights={A: 3.0}), step)
    ]
    assert torch.equal(chains[0], chains[1])
    assert not torch.equal(chains[0], chains[2])


def test_guidance_grows_with_the_steps_where_it_is_scheduled(model: FourM) -> None:
    step = GenerationStep(TARGET, "roar", 4, guidance=5.0, guidance_schedule="linear")
    assert [guidance_share(step, number) for number in (1, 2, 4)] == [0.25, 0.5, 1]
    wave = replace(step, guidance_schedule="cosine")
    assert guidance_share(wave, 1) < 0.25 < guidance_share(wave, 3) < guidance_share(wave, 4) == 1
    (conditioned, without) = sides_of(step, toy.two_opinions(2), ())
    assert (conditioned.weight(step, 1), without.weight(step, 1)) == (2.0, -1.0)
    assert (conditioned.weight(step, 4), without.weight(step, 4)) == (5.0, -4.0)
    assert len(sides_of(replace(step, guidance=0.0), toy.two_opinions(2), ())) == 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_guided_draws_follow_from_seed_and_sample(model: FourM, scheme: Scheme) -> None:
    step = step_of(scheme, weights={A: 1.5, B: -0.5})
    every = toy.two_opinions(6)

    def run(rows: list[int], seed: int) -> torch.Tensor:
        return generate(model, every.rows(torch.tensor(rows)), [step], seed)[step.target]

    together = run([0, 1, 2, 3, 4, 5], 7)
    assert torch.equal(together, run([0, 1, 2, 3, 4, 5], 7))
    assert float((together[[4, 2]] == run([4, 2], 7)).float().mean()) > 0.95
    assert float((together == run([0, 1, 2, 3, 4, 5], 8)).float().mean()) < 0.9


def test_impossible_weights_are_refused_by_name(model: FourM) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{A}'"):
        generate(model, toy.two_opinions(1), [step_of("roar", weights={"tok_a": 1.0})])
    with pytest.raises(ConfigError, match="leave guidance out"):
        step_of("roar", weights={A: 1.0}, guidance=2.0)
    with pytest.raises(ConfigError, match="has no weight"):
        step_of("roar", weights={TARGET: 1.0})
    with pytest.raises(ConfigError, match="finite"):
        step_of("roar", weights={A: float("nan")})


def test_guidance_warns_of_a_condition_that_training_never_left_out(
    model: FourM, capsys: pytest.CaptureFixture[str]
) -> None:
    conditions = toy.two_opinions(1)
    generate(model, conditions, [step_of("roar", guidance=2.0)])
    generate(model, conditions, [step_of("roar")])
    assert capsys.readouterr().err == ""
    always = {"inputs": {A: 1000.0, B: 0.01}}
    other = FourM(toy.DOMAINS, model.shape)
    generate(other, conditions, [step_of("roar", guidance=2.0)])
    assert capsys.readouterr().err == ""  # nothing is known of how it was trained
    other.masking = MaskingConfig.model_validate({"input_tokens": 8, "mixture": [always]})
    generate(other, conditions, [step_of("roar", guidance=2.0)])
    warning = capsys.readouterr().err
    assert f"{TARGET} is guided by {A}, but" in warning
    generate(other, conditions, [step_of("roar")])
    generate(other, conditions, [step_of("roar", weights={B: 2.0})])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [A, B, TARGET])
def test_how_often_training_lacked_a_condition_is_what_masks_do(name: str) -> None:
    mixture = [{"weight": 2.0, "inputs": {A: 0.5, B: 1.0}}, {"inputs": {"*": 0.3}}]
    config = MaskingConfig.model_validate(
        {"law": "faithful", "input_tokens": 8, "target_tokens": 8, "mixture": mixture}
    )
    domains = Domains.of([toy.A, toy.B, toy.TARGET])
    samples = toy.batch(0, 4000)
    tokens = {each: samples.tokens[each] for each in domains.names}
    chosen = Masking(domains, config, seed=0)(replace(samples, tokens=tokens))
    lacked = (chosen.input_modality != domains.index(name)).all(1).float().mean()
    assert shares_without(domains, config)[name] == pytest.approx(float(lacked), abs=0.05)
