"""Generation: as the reference generates, and what a user relies on beyond it."""

import numpy as np
import pytest
import torch
from tests.train.reference import DOMAINS, golden, micro_model, rgb_patches

from fourmill.manifests.errors import ConfigError, GenerationError, UnknownNameError
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.generate import generate
from fourmill.train.guidance import predict, sides_of
from fourmill.train.model import FourM
from fourmill.train.sampling import draw
from fourmill.train.schedules import GenerationStep

FLOAT_NOISE = 3e-6  # logits are about 1, and equal to some ulps; closer ones may swap ranks


def rgb() -> Conditions:
    return Conditions(torch.tensor([0]), {}, {"rgb@224": rgb_patches()})


@torch.no_grad()
def scores(
    model: FourM,
    conditions: Conditions,
    step: GenerationStep,
    place: torch.Tensor,
    read: torch.Tensor | None = None,
) -> torch.Tensor:
    return predict(model, step, sides_of(step, conditions, ()), place, read=read)


def gap_to_best(logits: torch.Tensor, token: torch.Tensor) -> float:
    return float((logits.amax(-1) - logits.gather(-1, token[..., None])[..., 0]).max())


@pytest.mark.parametrize(("name", "scale"), [("plain", 1.0), ("cfg2", 2.0), ("cfg-1", -1.0)])
@torch.no_grad()
def test_a_grid_in_one_step_has_the_tokens_of_the_reference(name: str, scale: float) -> None:
    expected = torch.tensor(golden("generation.npz")[f"gen/rgb_to_depth/onestep_argmax/{name}"])
    step = GenerationStep("tok_depth@224", "maskgit", guidance=scale)
    place = torch.arange(196)[None]
    logits = scores(micro_model(), rgb(), step, place)
    assert gap_to_best(logits, expected.long()) < FLOAT_NOISE
    found = generate(micro_model(), rgb(), [step])["tok_depth@224"]
    assert gap_to_best(logits, found) < FLOAT_NOISE


@torch.no_grad()
def test_logits_are_those_of_the_reference() -> None:
    place = torch.arange(196)[None]
    step = GenerationStep("tok_depth@224", "maskgit")
    logits = scores(micro_model(), rgb(), step, place)[:, :4, ::16]
    expected = golden("generation.npz")["gen/rgb_to_depth/logits_every_16th"]
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@torch.no_grad()
def test_a_caption_follows_the_reference_word_by_word() -> None:
    words = torch.tensor(golden("generation.npz")["gen/rgb_to_caption/ar_argmax"]).long()
    model = micro_model()
    step = GenerationStep("caption", "autoregressive")
    read = torch.cat([torch.tensor([[5]]), words[:, :-1]], dim=1)  # after the first sentinel
    place = torch.arange(words.shape[1])[None]
    logits = scores(model, rgb(), step, place, read)
    assert gap_to_best(logits, words) < FLOAT_NOISE


@torch.no_grad()
def test_text_conditions_a_grid_as_in_the_reference() -> None:
    file = golden("generation.npz")
    text = torch.tensor(file["gen/custom_text/ids"][:, :7]).long()  # and then the open target
    conditions = Conditions(torch.tensor([0]), {"caption": text})
    step = GenerationStep("tok_semseg@224", "maskgit")
    place = torch.arange(196)[None]
    logits = scores(micro_model(), conditions, step, place)
    expected = torch.tensor(file["gen/caption_to_semseg/onestep_argmax"]).long()
    assert gap_to_best(logits, expected) < FLOAT_NOISE


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
@pytest.mark.parametrize("steps", [1, 5])
def test_what_is_known_of_a_grid_stays_as_it_was(scheme: str, steps: int) -> None:
    known = torch.arange(196)[None].clone()
    known[:, ::3] = -1
    conditions = Conditions(torch.tensor([3]), {"tok_rgb@224": known})
    step = GenerationStep("tok_rgb@224", scheme, steps, temperature=1.0)
    grid = generate(micro_model(), conditions, [step], seed=1)["tok_rgb@224"]
    assert torch.equal(grid[known >= 0], known[known >= 0])
    assert (grid >= 0).all()


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_samples_depend_on_the_seed_and_not_on_the_batch(scheme: str) -> None:
    model = micro_model()
    step = GenerationStep("tok_depth@224", scheme, 1, temperature=1.0, top_p=0.9, top_k=50)
    text = torch.tensor([[4300, 4301, 3], [4400, 3, 0], [4500, 4501, 3]])

    def run(rows: list[int], seed: int) -> torch.Tensor:
        conditions = Conditions(torch.tensor(rows), {"caption": text[rows]})
        return generate(model, conditions, [step], seed)["tok_depth@224"]

    def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one == other).float().mean())

    together = run([0, 1, 2], seed=7)
    assert torch.equal(together, run([0, 1, 2], seed=7))
    # not all of them: the shape of a product decides its last bits, and these logits are close
    assert agreement(together[1:2], run([1], seed=7)) > 0.95
    assert agreement(together[[2, 0]], run([2, 0], seed=7)) > 0.95
    assert agreement(together, run([0, 1, 2], seed=8)) < 0.2


def test_a_chain_sees_what_it_made_before() -> None:
    model = micro_model()
    first = GenerationStep("tok_depth@224", "maskgit")
    second = GenerationStep("tok_normal@224", "maskgit")
    chained = generate(model, rgb(), [first, second])
    given = Conditions(torch.tensor([0]), {"tok_depth@224": chained["tok_depth@224"]}, rgb().pixels)
    again = generate(model, given, [second])["tok_normal@224"]
    assert torch.equal(again, chained["tok_normal@224"])
    alone = generate(model, rgb(), [second])["tok_normal@224"]
    assert not torch.equal(alone, chained["tok_normal@224"])


def test_sequences_end_and_are_padded() -> None:
    step = GenerationStep("caption", "autoregressive", temperature=1.0)
    caption = generate(micro_model(), rgb(), [step], seed=3)["caption"]
    assert caption.shape == (1, 256)
    ends = (caption[0] == 3).nonzero()
    if len(ends):
        assert not caption[0, ends[0, 0] + 1 :].any()


def test_nothing_known_is_no_input_at_all() -> None:
    selection = select_inputs(DOMAINS, Conditions(torch.tensor([0, 1])))
    assert selection.input_modality.shape == (2, 0)
    step = GenerationStep("tok_depth@224", "maskgit", guidance=2.0)
    sides = sides_of(step, rgb(), ())
    assert [each.weight(step, 1) for each in sides] == [2.0, -1.0]
    assert [each.conditions.names for each in sides] == [("rgb@224",), ()]


def test_wrong_requests_are_refused_by_name() -> None:
    model = micro_model()
    with pytest.raises(UnknownNameError, match="did you mean 'tok_depth@224'"):
        generate(model, rgb(), [GenerationStep("tok_dpeth@224", "maskgit")])
    with pytest.raises(ConfigError, match=r"rgb@224 is no target"):
        generate(model, rgb(), [GenerationStep("rgb@224", "maskgit")])
    with pytest.raises(ConfigError, match="caption is generated by autoregressive"):
        generate(model, rgb(), [GenerationStep("caption", "maskgit")])
    with pytest.raises(ConfigError, match="at least one step"):
        GenerationStep("caption", "autoregressive", steps=0)


def test_of_no_samples_nothing_is_generated() -> None:
    plan = [GenerationStep("tok_depth@224", "maskgit"), GenerationStep("caption", "autoregressive")]
    nothing = Conditions(torch.zeros(0, dtype=torch.int64))
    found = generate(micro_model(), nothing, plan)
    assert {name: len(each) for name, each in found.items()} == {"tok_depth@224": 0, "caption": 0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "step",
    [
        GenerationStep("tok_depth@224", "maskgit"),
        GenerationStep("tok_depth@224", "roar", 2, temperature=1.0, top_p=0.9, top_k=50),
        GenerationStep("caption", "autoregressive", temperature=1.0, top_p=0.5),
    ],
    ids=lambda step: step.scheme,
)
def test_a_model_whose_scores_are_no_numbers_draws_nothing(
    value: float, step: GenerationStep
) -> None:
    model = micro_model()
    model.head(step.target).data[7] = value
    with pytest.raises(GenerationError, match=f"{step.target}: .* take another checkpoint"):
        generate(model, rgb(), [step])
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(GenerationError, match="--dtype"):
        generate(model, rgb(), [step])


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"top_p": 0.5}, {"top_k": 700, "top_p": 0.9}]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_can_be_drawn_is_known_from_the_probability(
    options: dict[str, float], temperature: float
) -> None:
    """Ids that are ruled out by -inf are no fault; nothing that is left, or no number, is one."""
    step = GenerationStep("x", "roar", temperature=temperature, **options)  # type: ignore[arg-type]
    logits = torch.randn(1, 5, 1000, generator=torch.Generator().manual_seed(0))
    logits[0, 0, 1:] = float("-inf")  # one id is left
    logits[0, 2] = float("-inf")
    logits[0, 3, 9] = float("nan")
    logits[0, 4, 9] = float("inf")
    noise = torch.full((1, 5), 0.5, dtype=torch.float64)
    _, probability = draw(logits, step, temperature, noise)
    assert probability.isfinite().tolist() == [[True, True, False, False, False]]
