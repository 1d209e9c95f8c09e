"""Schedules: how much is filled when, how boldly, and what the presets are."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import FOURM_21, Masking, modality
from fourmill.train.generate import _filled_by
from fourmill.train.sampling import draw
from fourmill.train.schedules import (
    PRESETS,
    GenerationStep,
    OneOverX,
    parse_cooling,
    preset,
    temperature_at,
)


def filled(schedule: str, missing: int) -> list[int]:
    step = GenerationStep("x", "roar", 4, schedule)  # type: ignore[arg-type]
    return [int(_filled_by(step, number, torch.tensor([missing]), 16)) for number in range(1, 5)]


def test_schedules_fill_what_is_missing() -> None:
    assert filled("linear", 16) == [4, 8, 12, 16]
    assert filled("cosine", 16) == [2, 8, 14, 16]
    assert filled("constant", 16) == [4, 8, 12, 16]
    assert filled("linear", 6) == [2, 3, 4, 6]
    assert filled("constant", 6) == [4, 6, 6, 6]  # nothing is left for the last two steps


def test_temperatures_fall_as_they_are_told() -> None:
    def temperatures(cooling: str) -> list[float]:
        step = GenerationStep(
            "x", "roar", 4, "linear", temperature=2.0, cooling=parse_cooling(cooling)
        )
        return [round(temperature_at(step, number), 3) for number in range(1, 5)]

    assert temperatures("constant") == [2, 2, 2, 2]
    assert temperatures("linear") == [2, 1.5, 1, 0.5]
    gentle, steep = temperatures("onex:0.5:0.5"), temperatures("onex:0.5:2")
    assert gentle[0] == steep[0] == 2
    assert all(a > b >= 0.5 for a, b in zip(gentle, steep, strict=True) if a != 2)
    assert gentle == sorted(gentle, reverse=True)
    assert OneOverX(0.5, 2.0).above_least(1.0) == 0
    assert temperatures("onex:3:1") == [2, 2, 2, 2]  # it never rises


@pytest.mark.parametrize("text", ["onex", "onex:1", "onex:a:b", "onex:1:0", "onex:-1:1", "warm"])
def test_other_temperatures_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="onex:"):
        parse_cooling(text)


def test_a_file_says_a_step_with_all_its_options() -> None:
    read = {
        "target": "x", "scheme": "roar", "cooling": "onex:0.5:2", "weights": {"rgb@224": -1},
        "guidance_schedule": "cosine", "grow": False,
    }  # fmt: skip
    step = TypeAdapter(GenerationStep).validate_python(read)
    assert step.cooling == OneOverX(0.5, 2.0)
    assert step.weights == {"rgb@224": -1}
    with pytest.raises(ValidationError, match="expected constant, linear, or onex"):
        TypeAdapter(GenerationStep).validate_python(read | {"cooling": "onex"})


def test_presets_say_how_any_target_is_generated() -> None:
    targets = [modality(name) for name in FOURM_21 if modality(name).is_target]
    for name in PRESETS:
        chain = preset(name).chain(targets)
        assert {each.target for each in chain} == {each.name for each in targets}
        for step in chain:
            is_grid = modality(step.target).masking is Masking.IMAGE
            assert (step.scheme == "autoregressive") != is_grid
    with pytest.raises(UnknownNameError, match="did you mean 'from-text'"):
        preset("from_text")


def test_a_picture_of_a_text_follows_its_features() -> None:
    names = ("tok_rgb@224", "tok_clip@224", "caption")
    chain = preset("from-text").chain([modality(name) for name in names])
    assert [each.target for each in chain] == ["caption", "tok_clip@224", "tok_rgb@224"]
    assert [each.steps for each in chain] == [1, 50, 25]


@pytest.mark.parametrize("options", [{"top_k": 40}, {"top_p": 0.6}, {"top_k": 900, "top_p": 0.6}])
@pytest.mark.parametrize("boldness", [0.01, 3.0])
def test_only_the_likelier_ids_are_drawn(options: dict[str, float], boldness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50, 1000, generator=generator) * boldness  # nearly even, and peaked
    noise = torch.rand(2, 50, generator=generator, dtype=torch.float64)
    step = GenerationStep("x", "roar", temperature=0.7, **options)  # type: ignore[arg-type]
    token, sureness = draw(logits, step, 0.7, noise)
    ranked = logits.sort(-1, descending=True)
    probability = ranked.values.softmax(-1)
    allowed = probability.cumsum(-1) - probability < options.get("top_p", 1.0) + 1e-6
    allowed[..., int(options.get("top_k", 1000)) :] = False
    place = (ranked.indices == token[..., None]).int().argmax(-1)
    assert bool(allowed.gather(-1, place[..., None]).all())
    assert ((sureness > 0) & (sureness <= 1)).all()
    assert len(token.unique()) > 10
