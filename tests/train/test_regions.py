"""Pictures are painted anew in part, or farther: what is kept is kept to the bit."""

import pytest
import torch
from tests.train import toy

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import modality
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.config import Mixture
from fourmill.train.domains import Domains
from fourmill.train.generate import generate
from fourmill.train.model import FourM, ModelShape
from fourmill.train.regions import Box, cells, hide, join, keep, move
from fourmill.train.schedules import GenerationStep, Scheme

TARGET = toy.TARGET.name
PICTURE = torch.arange(32).view(2, 16) % toy.VALUES


@pytest.fixture(scope="module")
def model() -> FourM:
    return FourM(toy.DOMAINS, ModelShape(32, 4, encoder_depth=1, decoder_depth=1)).eval()


def paint(model: FourM, known: torch.Tensor, scheme: Scheme, **options: object) -> torch.Tensor:
    conditions = Conditions(torch.arange(len(known)), {TARGET: known})
    step = GenerationStep(TARGET, scheme, 3, temperature=1.0, **options)  # type: ignore[arg-type]
    return generate(model, conditions, [step], seed=1)[TARGET]


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_what_is_outside_of_a_box_is_untouched(
    model: FourM, scheme: Scheme, schedule: str
) -> None:  # fmt: skip
    known = hide(PICTURE, toy.TARGET, Box.of_pixels(0, 0, 9, 16, height=32, width=32))
    assert (known[0].view(4, 4) < 0).tolist() == [[True, True, False, False]] * 2 + [
        [False] * 4
    ] * 2
    painted = paint(model, known, scheme, schedule=schedule, guidance=2.0)
    assert torch.equal(painted[known >= 0], PICTURE[known >= 0])
    assert (painted >= 0).all()


def test_what_is_inside_of_a_box_is_kept_for_outpainting(model: FourM) -> None:
    box = Box(0.3, 0.3, 0.8, 0.8)
    known = keep(PICTURE, toy.TARGET, box)
    assert (known >= 0).sum() == 2  # one token of each lies in it whole
    assert (keep(PICTURE, toy.TARGET, box.grown(0.05)) >= 0).sum() == 2 * 4
    painted = paint(model, known, "maskgit")
    assert torch.equal(painted[known >= 0], PICTURE[known >= 0])


@pytest.mark.parametrize(("down", "right"), [(0, -2), (1, 0), (-1, 3)])
def test_a_moved_grid_is_painted_farther_and_joined(model: FourM, down: int, right: int) -> None:
    moved = move(PICTURE, toy.TARGET, down, right)
    assert (moved >= 0).sum() == 2 * (4 - abs(down)) * (4 - abs(right))
    painted = paint(model, moved, "roar")
    larger = join(PICTURE, painted, toy.TARGET, down, right)
    assert larger.shape == (2, 4 + abs(down), 4 + abs(right))
    top, left = max(0, down), max(0, right)
    assert torch.equal(larger[:, top : top + 4, left : left + 4].flatten(1), PICTURE)
    top, left = max(0, -down), max(0, -right)
    assert torch.equal(larger[:, top : top + 4, left : left + 4].flatten(1), painted)


def test_finished_rows_are_left_alone(model: FourM) -> None:
    known = PICTURE.clone()
    known[1, :5] = -1
    both, alone = paint(model, known, "maskgit"), paint(model, known[1:], "maskgit")
    assert torch.equal(both[0], PICTURE[0])
    assert torch.equal(both[1, 5:], alone[0, 5:])


def test_boxes_of_fractions_and_of_pixels_are_the_same() -> None:
    grid = modality("tok_rgb@224")
    half = cells(grid, Box(0.0, 0.5, 1.0, 1.0))
    assert torch.equal(half, cells(grid, Box.of_pixels(0, 112, 224, 224, 224, 224)))
    assert half.view(14, 14)[0].tolist() == [False] * 7 + [True] * 7
    thirds = cells(grid, Box.of_pixels(0, 0, 48, 48, 672, 672), whole=True)
    assert thirds.sum() == 1


def test_of_pixels_some_patches_can_be_given(model: FourM) -> None:
    domains = Domains.of([modality("rgb@224"), modality("tok_rgb@224")])
    pixels = {"rgb@224": torch.zeros(1, 224, 224, 3, dtype=torch.uint8)}
    shown = cells(domains.modality("rgb@224"), Box(0.0, 0.0, 0.5, 0.5))[None]
    conditions = Conditions(torch.tensor([0]), {}, pixels, {"rgb@224": shown})
    selection = select_inputs(domains, conditions.prepared(domains))
    assert selection.input_position[0].tolist() == shown[0].nonzero()[:, 0].tolist()
    with pytest.raises(ConfigError, match="said to be shown"):
        Conditions(torch.tensor([0]), {}, pixels, {"rgb@224": shown[:, :5]}).prepared(domains)


def test_contradictions_are_refused(model: FourM) -> None:
    with pytest.raises(ConfigError, match=f"{TARGET} is known already"):
        paint(model, PICTURE, "roar")
    one = torch.tensor([0])
    step = GenerationStep(TARGET, "roar")
    with pytest.raises(ConfigError, match="generated twice"):
        generate(model, Conditions(one), [step, step])
    twice = Conditions(one, {"tok_a@16": torch.zeros(1, 4).long()}, {"tok_a@16": torch.zeros(1)})
    with pytest.raises(ConfigError, match="tok_a@16 is given twice"):
        generate(model, twice, [step])
    with pytest.raises(ConfigError, match="expected -1 to 7"):
        generate(model, Conditions(one, {"tok_a@16": torch.full((1, 4), 8)}), [step])
    with pytest.raises(ConfigError, match=r"found tokens \(1, 3\), expected 4"):
        generate(model, Conditions(one, {"tok_a@16": torch.zeros(1, 3).long()}), [step])
    with pytest.raises(ConfigError, match="upper left corner first"):
        Box(0.5, 0.0, 0.2, 1.0)
    with pytest.raises(ConfigError, match="nothing is left"):
        move(PICTURE, toy.TARGET, right=4)
    with pytest.raises(ConfigError, match="is no grid"):
        cells(toy.TEXT, Box(0.0, 0.0, 1.0, 1.0))


def test_a_target_that_the_model_cannot_see_is_generated_and_not_given(model: FourM) -> None:
    domains = Domains.of([toy.A, toy.TARGET, toy.TEXT], inputs=[toy.A.name])
    blind = FourM(domains, model.shape).eval()
    known = Conditions(torch.tensor([0]), {toy.A.name: torch.zeros(1, 4).long()})
    step = GenerationStep(TARGET, "maskgit", 4)
    assert (generate(blind, known, [step])[TARGET] >= 0).all()
    blind.masking = toy.MASKING.model_copy(update={"mixture": (Mixture(),)})
    second = GenerationStep(toy.TEXT.name, "autoregressive", guidance=2.0)
    chain = generate(blind, known, [step, second])  # guided by what it cannot see, too
    assert chain[toy.TEXT.name].shape == (1, 8)
    with pytest.raises(ConfigError, match=f"{TARGET} is no input of this model"):
        generate(blind, known.knowing(TARGET, PICTURE[:1]), [step])
