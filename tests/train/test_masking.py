"""The masking law: what is chosen of each sample, and how often."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import FOURM_7, Kind, Modality, modality
from fourmill.manifests.modalities import Masking as Law
from fourmill.train.batch import Batch, patches
from fourmill.train.budgets import fill
from fourmill.train.config import MaskingConfig, Mixture
from fourmill.train.counters import integers, log_dirichlet, sample_keys, uniforms
from fourmill.train.domains import Domains
from fourmill.train.masking import Masking
from fourmill.train.selection import PADDING, Selection
from fourmill.train.spans import Keep, Spans, mask_spans

EOS, FIRST_SENTINEL, LAST_SENTINEL = 3, 5, 203
METADATA = Modality(
    "tok_metadata", Kind.TOKENS, "tok_metadata", "npy", Law.CHUNKS, 6000, 40, token_of="metadata"
)
DOMAINS = Domains.of([*(modality(name) for name in FOURM_7), METADATA])
PIXELS_OR_ALL = (Mixture(inputs={"rgb@224": 1000.0}), Mixture())


def make_batch(size: int, first: int = 0) -> Batch:
    """Grids whose token says its place, sentences of words from 5000 on, metadata in pairs."""
    ids = torch.arange(first, first + size)
    tokens = {}
    for each in DOMAINS.modalities:
        if each.masking is Law.IMAGE:
            tokens[each.name] = (torch.arange(196) + ids[:, None]).to(torch.int32)
        elif each.masking in (Law.SEQUENCE, Law.CHUNKS):
            length = 2 + 2 * (ids * 7 % 15)[:, None]
            place = torch.arange(each.max_tokens)
            words = 5000 + place
            if each.masking is Law.CHUNKS:
                words = torch.where(place % 2 == 0, 1204, 204) + place
            word = torch.where(place < length, words, 0)
            tokens[each.name] = torch.where(place == length, EOS, word).to(torch.int32)
    pixels = {"rgb@224": torch.zeros(size, 224, 224, 3, dtype=torch.uint8)}
    return Batch(ids, torch.zeros_like(ids), tokens, {}, pixels)


def mask(law: str, batch: Batch, **options: object) -> Selection:
    config = MaskingConfig.model_validate(
        {"law": law, "input_tokens": 128, "target_tokens": 128, "mixture": PIXELS_OR_ALL} | options
    )
    return Masking(DOMAINS, config, seed=3)(batch)


@pytest.mark.parametrize("law", ["faithful", "efficient"])
def test_no_place_of_a_grid_is_both_input_and_target(law: str) -> None:
    selection = mask(law, make_batch(64), input_tokens=600, target_tokens=600)
    for index, each in enumerate(DOMAINS.modalities):
        if each.masking is not Law.IMAGE:
            continue
        for row in range(64):
            seen = selection.input_position[row][selection.input_modality[row] == index].tolist()
            asked = selection.target_position[row][selection.target_modality[row] == index].tolist()
            assert len({*seen, *asked}) == len(seen) + len(asked)


def test_tokens_are_those_of_their_places() -> None:
    batch = make_batch(8)
    selection = mask("efficient", batch)
    for index, each in enumerate(DOMAINS.modalities):
        if each.masking is Law.IMAGE:
            for side in ("input", "target"):
                token = vars(selection)[f"{side}_{'token' if side == 'input' else 'label'}"]
                chosen = vars(selection)[f"{side}_modality"] == index
                place = vars(selection)[f"{side}_position"]
                row = batch.sample[:, None].expand_as(place)
                assert torch.equal(token[chosen], (place + row)[chosen])


def test_the_efficient_law_leaves_no_padding_where_grids_have_room() -> None:
    selection = mask("efficient", make_batch(200))
    assert (selection.input_modality != PADDING).all()
    assert (selection.target_modality != PADDING).all()


@pytest.mark.parametrize("law", ["faithful", "efficient"])
def test_masks_depend_on_sample_visit_and_seed_alone(law: str) -> None:
    whole = mask(law, make_batch(32))
    part = mask(law, make_batch(5, first=20))
    for name, value in vars(whole).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value[20:25], vars(part)[name]), name
    again = make_batch(32)
    other = mask(law, Batch(again.sample, again.visit + 1, again.tokens, {}, again.pixels))
    assert not torch.equal(whole.input_position, other.input_position)


@pytest.mark.parametrize("law", ["faithful", "efficient"])
def test_a_modality_that_a_sample_lacks_is_neither_input_nor_target(law: str) -> None:
    batch = make_batch(64)
    missing = torch.arange(64) % 2 == 0
    valid = dict.fromkeys(("tok_rgb@224", "caption", "rgb@224"), ~missing)
    selection = mask(law, Batch(batch.sample, batch.visit, batch.tokens, valid, batch.pixels))
    for name in valid:
        index = DOMAINS.index(name)
        assert not (selection.input_modality[missing] == index).any()
        assert not (selection.target_modality[missing] == index).any()
        assert (selection.input_modality[~missing] == index).any()


@pytest.mark.parametrize("law", ["faithful", "efficient"])
@given(budget=st.integers(1, 400), first=st.integers(0, 10**12), alpha=st.sampled_from([0.1, 2.0]))
@settings(deadline=None, max_examples=15)
def test_pixels_that_nobody_wants_need_not_be_there(
    law: str, budget: int, first: int, alpha: float
) -> None:
    batch = make_batch(40, first)
    config = MaskingConfig(
        law=law,  # type: ignore[arg-type]
        input_tokens=(1, budget),
        mixture=(*PIXELS_OR_ALL, Mixture(inputs={"*": alpha}), Mixture(inputs={"caption": 1})),
    )
    masking = Masking(DOMAINS, config, seed=3)
    wanted = masking.wants_pixels(batch.sample, batch.visit)["rgb@224"]
    assert not wanted.all()
    seen = masking(batch)
    assert not (seen.input_modality[~wanted] == DOMAINS.index("rgb@224")).any()
    without = Batch(batch.sample, batch.visit, batch.tokens, {"rgb@224": wanted}, batch.pixels)
    for name, value in vars(masking(without)).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, vars(seen)[name]), name


def test_budgets_may_be_ranges() -> None:
    selection = mask("efficient", make_batch(300), input_tokens=(20, 60), target_tokens=(10, 30))
    inputs = (selection.input_modality != PADDING).sum(1)
    targets = (selection.target_modality != PADDING).sum(1)
    assert selection.input_modality.shape[1] == 60
    assert (inputs.min().item(), inputs.max().item()) == (20, 60)
    assert (targets.min().item(), targets.max().item()) == (10, 30)


@pytest.mark.parametrize("alpha", [[0.5, 0.5, 0.5], [0.05, 1.0, 10.0], [1000.0, 2.0, 0.0]])
def test_shares_have_the_moments_of_a_dirichlet_distribution(alpha: list[float]) -> None:
    count = 20_000
    keys = sample_keys(1, torch.arange(count), torch.zeros(count, dtype=torch.int64))
    shares = log_dirichlet(keys, "shares", torch.tensor([alpha] * count).double()).exp()
    total = sum(alpha)
    for part, value in enumerate(alpha):
        mean = value / total
        variance = mean * (1 - mean) / (total + 1)
        assert shares[:, part].mean().item() == pytest.approx(
            mean, abs=5 * (variance / count) ** 0.5 + 1e-9
        )
        assert shares[:, part].var().item() == pytest.approx(variance, rel=0.1, abs=1e-9)


def test_numbers_of_streams_are_even_and_independent() -> None:
    keys = sample_keys(0, torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64))
    one, other = uniforms(keys, "one", 2), uniforms(keys, "other", 2)
    for each in (one[:, 0], one[:, 1], other[:, 0]):
        counts = torch.histc(each.float(), 20, 0, 1)
        assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-square of 19 degrees: p = 1e-4
    table = torch.stack([one[:, 0], one[:, 1], other[:, 0], other[:, 1]])
    assert (torch.corrcoef(table) - torch.eye(4)).abs().max() < 0.03
    drawn = integers(keys, "whole", 2, 4)
    assert set(drawn.tolist()) == {2, 3, 4}


@given(
    left=st.integers(0, 300),
    shares=st.lists(st.sampled_from([0.0, 1e-6, 0.1, 0.5, 1.0]), min_size=4, max_size=4),
    room=st.lists(st.integers(0, 100), min_size=4, max_size=4),
)
def test_filling_uses_all_that_there_is_room_for(left: int, shares: list, room: list) -> None:
    weights, space = torch.tensor([shares]).double(), torch.tensor([room])
    filled = fill(torch.zeros(1, 4, dtype=torch.int64), weights, torch.tensor([left]), space)
    possible = sum(size for size, share in zip(room, shares, strict=True) if share)
    assert filled.sum().item() == min(left, possible)
    assert (filled <= space).all()
    assert not filled[weights == 0].any()


@settings(deadline=None)
@given(
    length=st.integers(1, 30),
    budget_in=st.integers(0, 40),
    budget_out=st.integers(0, 70),
    keep=st.sampled_from(Keep),
    sample=st.integers(0, 10_000),
    in_chunks=st.booleans(),
)
def test_spans_and_inputs_make_up_the_sentence(
    length: int, budget_in: int, budget_out: int, keep: Keep, sample: int, in_chunks: bool
) -> None:
    sentence = [5000 + i for i in range(length)] + [EOS]
    spans = mask_one(sentence, budget_in, budget_out, keep, sample, in_chunks)
    seen = spans.input_token[0, : spans.input_length[0]].tolist()
    asked = spans.target_token[0, spans.target_start[0] :][: spans.target_length[0]].tolist()
    assert len(seen) <= budget_in
    assert len(asked) <= budget_out
    whole = mask_one(sentence, budget_in, 100, keep, sample, in_chunks)
    target = whole.target_token[0, : whole.target_length[0]].tolist()
    assert read_back(seen if budget_in else [FIRST_SENTINEL], target) == sentence
    if asked:
        assert is_sentinel(asked[0])  # a part that is taken begins with a sentinel
        start = target.index(asked[0])
        assert target[start : start + len(asked)] == asked
    if budget_out >= len(target):
        assert asked == target


def mask_one(
    sentence: list[int], budget_in: int, budget_out: int, keep: Keep, sample: int, in_chunks: bool
) -> Spans:
    token = torch.tensor([sentence + [0] * (32 - len(sentence))], dtype=torch.int32)
    keys = sample_keys(0, torch.tensor([sample]), torch.tensor([0]))
    budgets = torch.tensor([budget_in]), torch.tensor([budget_out])
    law = torch.tensor([int(keep)]), torch.tensor([in_chunks])
    return mask_spans(keys, token, *budgets, *law)


def is_sentinel(token: int) -> bool:
    return FIRST_SENTINEL <= token <= LAST_SENTINEL


def read_back(seen: list[int], target: list[int]) -> list[int]:
    """The sentence: each sentinel of the input replaced by the span that it opens in the target."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if is_sentinel(token):
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    assert not spans[list(spans)[-1]]  # the closing sentinel opens nothing
    found = []
    for token in seen:
        found += spans.pop(token) if is_sentinel(token) else [token]
    assert len(spans) == 1  # each sentinel of the input has its span, and none is left over
    return found


def test_chunks_are_masked_as_wholes() -> None:
    selection = mask("efficient", make_batch(200))
    index = DOMAINS.index("tok_metadata")
    for row in range(200):
        seen = selection.input_token[row][selection.input_modality[row] == index].tolist()
        for place, token in enumerate(seen):
            if 1204 <= token < 2204:  # a type is followed by its value
                assert seen[place + 1] == token - 1000 + 1


def test_a_decoder_reads_each_word_before_it_predicts_the_next() -> None:
    selection = mask("efficient", make_batch(50))
    index = DOMAINS.index("caption")
    for row in range(50):
        mine = selection.target_modality[row] == index
        read, label = selection.target_token[row][mine], selection.target_label[row][mine]
        assert torch.equal(read[1:], label[:-1])
        assert selection.target_position[row][mine].tolist() == list(range(len(read)))


def test_patches_run_row_by_row() -> None:
    image = torch.arange(4 * 6 * 3, dtype=torch.uint8).view(1, 4, 6, 3)
    found = patches(image, 2)
    assert found.shape == (1, 6, 12)
    assert torch.equal(found[0, 1].view(2, 2, 3), image[0, :2, 2:4])
    assert torch.equal(found[0, 3].view(2, 2, 3), image[0, 2:, :2])


def test_a_mixture_that_names_what_the_model_lacks_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tok_rgb@224'"):
        Masking(DOMAINS, MaskingConfig(mixture=(Mixture(inputs={"tok_rbg@224": 1.0}),)), 0)
    with pytest.raises(ConfigError, match=r"mixture.0: its targets name none"):
        Masking(DOMAINS, MaskingConfig(mixture=(Mixture(targets={"rgb@224": 1.0}),)), 0)
