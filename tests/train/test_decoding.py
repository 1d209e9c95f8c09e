"""Text is written with keys and values kept: the same words as without, and what is known stays."""

import subprocess
import sys
from functools import lru_cache

import pytest
import torch
from tests.train.reference import golden, micro_model, rgb_patches
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.tokenize.vocabulary import EOS, sentinel
from fourmill.train.conditions import Conditions, select_inputs, side_by_side
from fourmill.train.decoding import Writer
from fourmill.train.generate import generate
from fourmill.train.guidance import predict, sides_of
from fourmill.train.model import FourM
from fourmill.train.schedules import GenerationStep
from fourmill.train.writing import _fill_gaps

FLOAT_NOISE = 3e-6
GREEDY = GenerationStep("caption", "autoregressive")
WORDS = torch.tensor([[4300, 4301, EOS, 0], [4400, EOS, 0, 0], [4500, 4501, 4502, EOS]])


@lru_cache
def model_of(variant: str) -> FourM:
    return micro_model(variant)


def rgb(samples: int = 1) -> Conditions:
    pixels = {"rgb@224": rgb_patches().expand(samples, -1, -1)}
    return Conditions(torch.arange(samples), {}, pixels)


def said_of(samples: int) -> Conditions:
    """Boxes to write captions of."""
    return Conditions(torch.arange(samples), {"det": WORDS[:samples]})


@torch.no_grad()
def rewritten(
    model: FourM, conditions: Conditions, step: GenerationStep, words: Tensor
) -> Tensor:  # fmt: skip
    """Scores of all words, computed at once from all that stand before."""
    read = torch.cat([torch.full_like(words[:, :1], sentinel(1)), words[:, :-1]], dim=1)
    place = torch.arange(words.shape[1]).expand_as(words)
    return predict(model, step, sides_of(step, conditions, ()), place, read=read)


@pytest.mark.parametrize("variant", ["swiglu", "nosep", "causal", "reg"])
@torch.no_grad()
def test_what_is_kept_says_the_same_as_all_computed_again(variant: str) -> None:
    model, conditions = model_of(variant), said_of(3)
    words = torch.tensor(golden("generation.npz")["gen/rgb_to_caption/ar_argmax"]).long()[:, :12]
    words = words.expand(3, -1)
    read = torch.cat([torch.full_like(words[:, :1], sentinel(1)), words[:, :-1]], dim=1)
    writer = Writer(model, "caption", *model.encode(select_inputs(model.domains, conditions)), 256)
    said = torch.stack([writer.write(read[:, place]) for place in range(words.shape[1])], dim=1)
    expected = rewritten(model, conditions, GREEDY, words)
    torch.testing.assert_close(model.logits("caption", said), expected, atol=FLOAT_NOISE, rtol=0)


@torch.no_grad()
def test_every_word_of_the_reference_is_the_likeliest_to_float_noise() -> None:
    model = model_of("swiglu")
    words = torch.tensor(golden("generation.npz")["gen/rgb_to_caption/ar_argmax"]).long()
    writer = Writer(model, "caption", *model.encode(select_inputs(model.domains, rgb())), 256)
    read = [sentinel(1), *words[0, :-1].tolist()]
    for before, word in zip(read, words[0], strict=True):
        scores = model.logits("caption", writer.write(torch.tensor([before])))[0]
        assert scores.max() - scores[word] < FLOAT_NOISE


@torch.no_grad()
def test_the_likeliest_words_are_exactly_those_without_memory() -> None:
    # of random weights; those of the reference's tests have many ids that are equally likely
    model = FourM(model_of("swiglu").domains, model_of("swiglu").shape).eval()
    found = generate(model, rgb(), [GREEDY])["caption"][:, :40]
    again = rewritten(model, rgb(), GREEDY, found).argmax(-1)
    assert torch.equal(found, again)


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"weights": {"det": -1.0}}])
def test_words_are_those_that_a_decoder_without_memory_writes(options: dict[str, float]) -> None:
    model, conditions = model_of("reg"), said_of(2)
    step = GenerationStep("caption", "autoregressive", **options)  # type: ignore[arg-type]
    found = generate(model, conditions, [step])["caption"]
    length = 24
    scores = rewritten(model, conditions, step, found[:, :length])
    ended = (found[:, :length] == 0).cumsum(1) > 0
    gap = scores.max(-1).values - scores.gather(2, found[:, :length, None])[..., 0]
    assert float(gap.masked_fill(ended, 0).max()) < 3 * FLOAT_NOISE


@torch.no_grad()
def test_rows_that_are_left_out_change_nothing_for_the_others() -> None:
    model, conditions = model_of("swiglu"), said_of(3)
    seen = side_by_side([select_inputs(model.domains, conditions)] * 2)
    token = torch.tensor([5, 5, 5, 5, 5, 5])
    kept = torch.tensor([0, 2, 3, 5])
    writers = [Writer(model, "caption", *model.encode(seen), 256) for _ in range(2)]
    for each in writers:
        each.write(token)
    writers[1].keep_rows(kept)
    every, some = writers[0].write(token + 4300), writers[1].write(token[kept] + 4300)
    torch.testing.assert_close(every[kept], some, atol=FLOAT_NOISE, rtol=0)


def test_words_go_into_the_gaps_of_what_is_known() -> None:
    first, second = sentinel(1), sentinel(2)
    known = torch.zeros(3, 10, dtype=torch.int64)
    known[0, :5] = torch.tensor([4300, first, 4301, second, EOS])
    known[1, :2] = torch.tensor([4302, first])
    conditions = Conditions(torch.arange(3), {"caption": known, "det": WORDS})
    step = GenerationStep("caption", "autoregressive", temperature=1.0)
    found = generate(model_of("swiglu"), conditions, [step], seed=5)["caption"]
    assert found.shape == (3, 256)
    for row in found.tolist():
        words = [token for token in row if token]
        assert row[: len(words)] == words  # zeros at the end alone
    words = [token for token in found[0].tolist() if token]
    assert words[0] == 4300
    assert words[-1] == EOS
    assert 4301 in words[1:-1]
    assert found[1, 0] == 4302
    assert not bool(((found == first) | (found == second))[:2].any())


def test_gaps_are_filled_in_any_order_and_what_is_known_stays() -> None:
    one, two = sentinel(1), sentinel(2)
    known = [4400, one, 4500, two, EOS, 0, 0, 0]
    assert _fill_gaps(known, [4600, two, 4601, EOS, one, 4602, 0, 0], 8) == [
        4400, 4600, 4602, 4500, 4601, EOS, 0, 0,
    ]  # fmt: skip
    assert _fill_gaps([4400, one, 0, 0], [4600, EOS, 0, 0], 4) == [4400, 4600, EOS, 0]


def test_a_sequence_without_a_gap_is_known_already() -> None:
    conditions = Conditions(torch.arange(3), {"caption": WORDS})
    with pytest.raises(ConfigError, match=r"caption is known already.*put a sentinel where"):
        generate(model_of("swiglu"), conditions, [GREEDY])
    open_one = torch.cat([torch.tensor([[4300, sentinel(1), EOS, 0]]), WORDS[1:]])
    mixed = Conditions(torch.arange(3), {"caption": open_one})
    found = generate(model_of("swiglu"), mixed, [GREEDY])["caption"]
    assert torch.equal(found[1:, :4], WORDS[1:])


_COMPILED = """
import torch
from fourmill.manifests.modalities import modality
from fourmill.train.conditions import Conditions
from fourmill.train.domains import Domains
from fourmill.train.generate import generate
from fourmill.train.model import FourM, ModelShape
from fourmill.train.schedules import GenerationStep

domains = Domains.of([modality("color_palette"), modality("caption")])
model = FourM(domains, ModelShape(16, 2, encoder_depth=1, decoder_depth=1)).eval()
known = Conditions(torch.arange(2), {"caption": torch.tensor([[4300, 4301, 3], [4400, 3, 0]])})
step = GenerationStep("color_palette", "autoregressive", temperature=1.0, guidance=2.0)
eager, compiled = (generate(model, known, [step], 1, each)["color_palette"] for each in (0, 1))
assert eager.any() and torch.equal(eager, compiled), (eager, compiled)
"""


@pytest.mark.slow
def test_a_compiled_decoder_writes_the_same() -> None:
    subprocess.run([sys.executable, "-c", _COMPILED], check=True)
