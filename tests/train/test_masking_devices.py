"""Every modality of 4M-21 through both laws, and on devices where nobody may look at a value."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fourmill.manifests.modalities import FOURM_21, modality
from fourmill.manifests.modalities import Masking as Law
from fourmill.train.batch import Batch
from fourmill.train.config import MaskingConfig, Mixture
from fourmill.train.domains import Domains
from fourmill.train.masking import Masking
from fourmill.train.model import FourM, ModelShape
from fourmill.train.selection import PADDING, Selection

DOMAINS = Domains.of([modality(name) for name in FOURM_21])
T5 = "t5_caption"
LAWS = ["faithful", "efficient"]
SENTINELS = range(5, 204)


def make_batch(size: int, width: int = 3) -> Batch:
    """Grids whose tokens say their places; texts of words from 5000 on; vectors that say theirs."""
    ids = torch.arange(size)
    tokens, vectors = {}, {}
    for each in DOMAINS.modalities:
        place = torch.arange(each.max_tokens)
        length = (1 + ids * 7 % (each.max_tokens - 1))[:, None]
        if each.masking is Law.IMAGE:
            tokens[each.name] = place.expand(size, -1).to(torch.int16)
        elif each.masking is Law.EMBEDDING:
            tokens[each.name] = (place < length).to(torch.uint8)
            values = torch.where(place < length, place + 1.0, float("nan"))
            vectors[each.name] = values[..., None].expand(-1, -1, width)
        elif each.masking is not Law.PIXELS:
            words = torch.where(place < length, 5000 + place, torch.where(place == length, 3, 0))
            tokens[each.name] = words.to(torch.int16)
    pixels = {"rgb@224": torch.zeros(size, 224, 224, 3, dtype=torch.uint8)}
    return Batch(ids, torch.zeros_like(ids), tokens, {}, pixels, vectors)


def masking(law: str, **options: object) -> Masking:
    config = MaskingConfig.model_validate(
        {"law": law, "input_tokens": 256, "target_tokens": 256} | options
    )
    return Masking(DOMAINS, config, seed=0)


@pytest.mark.parametrize("law", LAWS)
def test_every_modality_of_4m_21_is_masked(law: str) -> None:
    selection = masking(law)(make_batch(60))
    for side, names in (("input", DOMAINS.inputs), ("target", DOMAINS.targets)):
        found = set(vars(selection)[f"{side}_modality"].unique().tolist()) - {PADDING}
        assert found == {DOMAINS.index(name) for name in names}
    for name in DOMAINS.names:
        each, index = DOMAINS.modality(name), DOMAINS.index(name)
        seen = selection.input_modality == index
        position, token = selection.input_position[seen], selection.input_token[seen]
        if each.masking is Law.IMAGE:
            assert torch.equal(position, token)
            asked = selection.target_modality == index
            place = selection.target_position[asked]
            assert torch.equal(place, selection.target_label[asked])
            assert place.max() < each.max_tokens
        elif each.masking is Law.PIXELS:
            assert torch.equal(position, selection.input_source[seen])
        elif each.masking is not Law.EMBEDDING:
            is_sentinel = (token >= SENTINELS.start) & (token < SENTINELS.stop)
            assert ((token >= 5000) | (token == 3) | is_sentinel).all()


@pytest.mark.parametrize("law", LAWS)
def test_vectors_are_inputs_and_a_zero_vector_stands_for_a_span_of_them(law: str) -> None:
    batch = make_batch(300)
    selection = masking(law)(batch)
    index = DOMAINS.index(T5)
    num_spans = 0
    for row in range(300):
        mine = selection.input_modality[row] == index
        assert selection.input_position[row][mine].tolist() == list(range(int(mine.sum())))
        assert not selection.input_token[row][mine].any()
        source = selection.input_source[row][mine]
        numbers = selection.continuous[T5][row, source, 0].tolist()
        # those of the vectors count from 1, 0 is a span
        kept = [number for number in numbers if number]
        assert kept == sorted(set(kept))
        assert max(kept, default=0) <= batch.tokens[T5][row].sum()
        for before, after in pairwise(numbers):
            assert before or after  # spans are never side by side
            assert not (before and after) or after == before + 1  # without a span, none is left out
        num_spans += numbers.count(0)
    assert num_spans > 100
    assert not (selection.target_modality == index).any()


def test_a_sample_without_a_caption_has_no_vectors() -> None:
    batch = make_batch(60)
    valid = {T5: torch.arange(60) % 2 == 0}
    selection = masking("efficient")(replace(batch, valid=valid))
    has_any = (selection.input_modality == DOMAINS.index(T5)).any(1)
    assert not has_any[~valid[T5]].any()
    assert has_any.any()


def test_a_model_of_4m_21_reads_what_was_chosen() -> None:
    batch = make_batch(4, width=4096)
    shape = ModelShape(dim=16, heads=2, encoder_depth=1, decoder_depth=1)
    embedding = FourM(DOMAINS, shape).inputs
    selection = masking("efficient")(batch)
    x = embedding(
        selection.input_modality, selection.input_token, selection.input_source,
        selection.continuous,
    )  # fmt: skip
    mine = selection.input_modality == DOMAINS.index(T5)
    assert x[mine].isfinite().all()
    assert len(x[mine].unique(dim=0)) > 1


def on_gpu(batch: Batch) -> Batch:
    """A batch of the same shapes on a GPU that is not there."""

    def move(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.empty(each.shape, dtype=each.dtype, device="cuda")
            for name, each in values.items()
        }

    sample = torch.empty_like(batch.sample, device="cuda")
    parts = (batch.tokens, batch.valid, batch.pixels, batch.vectors)
    return Batch(sample, sample, *(move(dict(each)) for each in parts))


@pytest.mark.parametrize("law", LAWS)
def test_masks_are_made_on_a_device_without_a_look_at_any_value(law: str) -> None:
    mask = masking(law, input_tokens=(64, 256), mixture=(Mixture(), Mixture(keep={"*": "binary"})))
    with FakeTensorMode(allow_non_fake_inputs=True):  # refuses what would wait for the device
        selection = mask(on_gpu(make_batch(3)))
        assert selection.input_token.device.type == "cuda"
        assert selection.target_label.shape == (3, 256)


@pytest.mark.parametrize("law", LAWS)
def test_a_device_makes_the_masks_that_a_cpu_makes(
    law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, batch = masking(law), make_batch(40)
    expected = mask(batch)
    # on a CPU shapes may follow from values, which is faster; a compiler sees what a GPU does
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_same(mask(batch), expected)


def assert_same(one: Selection, other: Selection) -> None:
    for name, value in vars(one).items():
        if isinstance(value, Tensor):
            assert torch.equal(value, vars(other)[name]), name


@pytest.mark.slow
def test_a_compiled_masking_is_one_graph() -> None:
    # in a process without the checks of types, which a compiler cannot follow
    name = "tests.train.test_masking_devices"
    code = f"from {name} import compile_and_compare; compile_and_compare()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def compile_and_compare() -> None:
    mask, batch = masking("efficient"), make_batch(20)
    compiled = torch.compile(mask.__call__, fullgraph=True, backend="eager")
    assert_same(compiled(batch), mask(batch))
