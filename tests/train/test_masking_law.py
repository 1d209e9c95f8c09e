"""The masking law, by its statistics: beside the reference's own masks, and beside the same law
written sample by sample. All draws have fixed seeds, and so have the p-values."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.train.reference import golden
from torch import Tensor

from fourmill.manifests.modalities import FOURM_7, modality
from fourmill.manifests.modalities import Masking as Law
from fourmill.train.batch import Batch
from fourmill.train.budgets import winning_odds
from fourmill.train.config import MaskingConfig, Mixture
from fourmill.train.counters import sample_keys, split, streams
from fourmill.train.domains import Domains
from fourmill.train.grids import random_orders
from fourmill.train.masking import Masking
from fourmill.train.selection import PADDING, Selection
from fourmill.train.spans import Keep, mask_spans

PLAIN = Path(__file__).parents[2] / "benchmarks" / "plain_masking.py"
DOMAINS = Domains.of([modality(name) for name in FOURM_7])
LENGTHS = {"caption": 23, "det": 16}  # of the texts that the reference masked
PUBLISHED = (Mixture(inputs={"rgb@224": 1000.0}), Mixture())
LEAST_P = 1e-4
EOS, SENTINELS = 3, range(5, 204)


def chi_square_p(counts: Tensor, expected: Tensor, degrees: int) -> float:
    statistic = ((counts - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor(degrees / 2).double(), statistic / 2).item()


def independence_p(table: Tensor) -> float:
    """That rows and columns of a table of counts have nothing to do with one another."""
    table = table.double()
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    return chi_square_p(table, expected, (table.shape[0] - 1) * (table.shape[1] - 1))


def same_law_p(one: Tensor, other: Tensor) -> float:
    """That two sets of numbers come from one distribution."""
    pooled = torch.cat([one, other]).double()
    edges = pooled.quantile(torch.linspace(0, 1, 11).double()[1:-1]).unique()
    cells = [
        torch.bincount(torch.searchsorted(edges, each.double()), minlength=len(edges) + 1)
        for each in (one, other)
    ]
    table = torch.stack(cells)
    return independence_p(table[:, table.sum(0) > 0]) if len(edges) > 1 else 1.0


def test_a_difference_in_law_would_be_noticed() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 3000, generator=generator)
    assert same_law_p((20 * first).long(), (20 * second).long()) > LEAST_P
    assert same_law_p((20 * first).long(), (20 * second**1.3).long()) < LEAST_P
    assert independence_p(torch.tensor([[300, 200], [200, 300]])) < LEAST_P


@lru_cache
def plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_masking", PLAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_masking():
    of_all = dict.fromkeys(DOMAINS.targets, 0.5)
    mixture = [({"rgb@224": 1000.0}, of_all), (of_all | {"rgb@224": 0.5}, of_all)]
    return plain().PlainMasking(DOMAINS.modalities, mixture)


@lru_cache
def masking() -> Masking:
    return Masking(DOMAINS, MaskingConfig(law="faithful", mixture=PUBLISHED), seed=0)


@lru_cache
def masked(count: int = 4000) -> Selection:
    """Samples with the texts' lengths that the reference masked."""
    sample = torch.arange(count)
    tokens = {
        each.name: torch.zeros(count, 196, dtype=torch.int16)
        for each in DOMAINS.modalities
        if each.masking is Law.IMAGE
    }
    for name, length in LENGTHS.items():
        tokens[name] = sentence(length, DOMAINS.modality(name).max_tokens).expand(count, -1)
    return masking()(Batch(sample, torch.zeros_like(sample), tokens))


def sentence(length: int, width: int) -> Tensor:
    place = torch.arange(width)
    words = torch.where(place < length - 1, 5000 + place, torch.where(place < length, EOS, 0))
    return words.to(torch.int32)


@lru_cache
def budgets(count: int = 6000) -> tuple[Tensor, Tensor, Tensor]:
    """Of inputs and targets by the published law, and components of the mixture."""
    sample = torch.arange(count)
    keys = sample_keys(0, sample, torch.zeros_like(sample))
    component = masking()._draw_component(keys)
    inputs = masking()._faithful_inputs(keys, component, masking()._total_inputs(keys))
    is_grid = torch.tensor([name not in LENGTHS for name in DOMAINS.names])
    room = torch.tensor([each.max_tokens for each in DOMAINS.modalities]) - inputs * is_grid
    room[:, DOMAINS.index("rgb@224")] = 0
    return inputs, masking()._faithful_targets(keys, component, room), component


def test_budgets_are_those_of_the_law_done_sample_by_sample() -> None:
    inputs, targets, _ = budgets()
    law = plain_masking()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = torch.tensor([law.budgets() for _ in range(3000)])
    for ours, others in zip((inputs, targets), drawn.unbind(1), strict=True):
        for index in range(len(DOMAINS.names)):
            assert same_law_p(ours[:, index], others[:, index]) > LEAST_P
        for statistic in (lambda b: b.sum(1), lambda b: b.amax(1), lambda b: (b == 0).sum(1)):
            assert same_law_p(statistic(ours), statistic(others)) > LEAST_P


def test_budgets_are_those_that_the_reference_drew() -> None:
    """Its 16 pairs of budgets, beside many groups of 16 of ours: no group is farther off."""
    file = golden("model.npz")
    for ours, name in zip(budgets(), ("budget/in", "budget/tgt"), strict=False):
        edges = torch.tensor([1, 3, 9, 25, 60])
        groups = torch.searchsorted(edges, ours[: 375 * 16].contiguous(), right=True)
        groups = torch.nn.functional.one_hot(groups, 6).view(375, 16, -1, 6).sum((1, 2)).double()
        theirs = torch.searchsorted(edges, torch.tensor(file[name]), right=True)
        theirs = torch.nn.functional.one_hot(theirs, 6).sum((0, 1)).double()
        expected = groups.mean(0)
        distance = ((groups - expected) ** 2 / expected).sum(1)
        assert ((theirs - expected) ** 2 / expected).sum() < distance.quantile(0.999)


@pytest.mark.parametrize(
    "alpha",
    [[0.5] * 8, [0.01, 0.01, 0.1, 1.0, 10.0], [5.0, 0.05, 0.05, 0.0], [1000.0, 900.0, 30.0]],
)
def test_tokens_that_are_left_go_to_the_winners_of_dirichlet_draws(alpha: list[float]) -> None:
    parts = torch.tensor(alpha).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = torch.distributions.Dirichlet(parts.clamp(min=1e-9)).sample((20_000,))
    counts = torch.bincount(draws.argmax(1), minlength=len(alpha))
    expected = 20_000 * winning_odds(parts[None])[0]
    is_likely = expected > 5
    assert counts[~is_likely].sum() < 20
    degrees = int(is_likely.sum()) - 1
    assert chi_square_p(counts[is_likely], expected[is_likely], max(1, degrees)) > LEAST_P


@pytest.mark.parametrize(
    ("length", "inputs", "targets"),
    [(23, 0, 12), (23, 1, 40), (23, 5, 6), (40, 14, 14), (16, 99, 3)],
)
def test_spans_are_those_of_the_law_done_sample_by_sample(
    length: int, inputs: int, targets: int
) -> None:
    count = 3000
    token = sentence(length, length + 5)
    zeros = torch.zeros(count, dtype=torch.int64)
    keys = sample_keys(1, torch.arange(count), zeros)
    spans = mask_spans(
        keys, token.expand(count, -1), zeros + inputs, zeros + targets,
        zeros + Keep.RANDOM.value, zeros.bool(),
    )  # fmt: skip
    ours = [
        (spans.input_token[row, : spans.input_length[row]],
         spans.target_token[row, spans.target_start[row] :][: spans.target_length[row]])
        for row in range(count)
    ]  # fmt: skip
    law = plain_masking()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masks = [law.spans(token, inputs, targets) for _ in range(1500)]
    theirs = [(each.inputs, each.targets) for each in masks]
    for one, other in zip(span_statistics(ours), span_statistics(theirs), strict=True):
        assert same_law_p(one, other) > LEAST_P


def span_statistics(pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Lengths, numbers of spans, which span a target begins with, and how long that one is."""

    def of(seen: Tensor, asked: Tensor) -> list[int]:
        places = [place for place, id in enumerate(asked.tolist()) if id in SENTINELS]
        spans_seen = sum(id in SENTINELS for id in seen.tolist())
        first = int(asked[0]) if len(asked) else 0
        longest = places[1] if len(places) > 1 else len(asked)
        first_word = next((id for id in seen.tolist() if id not in SENTINELS), 0)
        return [len(seen), len(asked), spans_seen, len(places), first, longest, first_word]

    return list(torch.tensor([of(*pair) for pair in pairs]).T)


@pytest.mark.parametrize("side", ["input", "target"])
def test_masks_are_those_that_the_reference_made(side: str) -> None:
    """Means over its 16 samples, beside ours: slots that are used, and what texts gave."""
    file = golden("model.npz")
    selection = masked()
    theirs = {
        name: torch.tensor(~file[f"mask/{name}/{side}_mask"]).sum(1) for name in DOMAINS.names
    }
    indices = vars(selection)[f"{side}_modality"]
    ours = {name: (indices == DOMAINS.index(name)).sum(1) for name in DOMAINS.names}
    if side == "target":  # the first token of a sequence is read, and not predicted
        for name in LENGTHS:
            theirs[name] = (theirs[name] - 1).clamp(min=0)
    ours["all"], theirs["all"] = sum(ours.values()), sum(theirs.values())
    for name in LENGTHS:
        token = vars(selection)[f"{side}_token"]
        is_sentinel = (token >= SENTINELS.start) & (token < SENTINELS.stop)
        ours[f"spans of {name}"] = ((indices == DOMAINS.index(name)) & is_sentinel).sum(1)
        ids = torch.tensor(file[f"mask/{name}/tensor"])
        shown = torch.tensor(~file[f"mask/{name}/{side}_mask"])
        if side == "target":
            shown = shown & shown.roll(-1, 1)
        is_sentinel = (ids >= SENTINELS.start) & (ids < SENTINELS.stop)
        theirs[f"spans of {name}"] = (shown & is_sentinel).sum(1)
    for name, values in ours.items():
        many, few = values.double(), theirs[name].double()
        assert abs(many.mean() - few.mean()) <= 4 * many.std() / 4, name


@pytest.mark.parametrize("size", [16, 196, 256, 784])
def test_all_places_of_a_grid_are_as_likely_at_any_rank(size: int) -> None:
    count = 8000
    keys = sample_keys(0, torch.arange(count), torch.zeros(count, dtype=torch.int64))
    both = random_orders(split(keys, streams(["one", "other"])), [size, size])
    order, other = both[:, :size].long(), both[:, size:].long()
    assert torch.equal(order.sort(1).values, torch.arange(size).expand(count, -1))
    even = torch.full((size,), count / size, dtype=torch.float64)
    for rank in (0, size // 2, size - 1):
        assert (
            chi_square_p(torch.bincount(order[:, rank], minlength=size), even, size - 1) > LEAST_P
        )

    def table(one: Tensor, two: Tensor) -> Tensor:
        return torch.bincount(8 * (one * 8 // size) + two * 8 // size, minlength=64).view(8, 8)

    assert independence_p(table(order[:, 0], other[:, 0])) > LEAST_P  # of two grids
    assert independence_p(table(order[:-1, 0], order[1:, 0])) > LEAST_P  # of two samples
    distance = torch.bincount((order[:, 0] - order[:, 1]) % size, minlength=size)[1:]
    assert chi_square_p(distance, torch.full_like(distance, count / (size - 1)).double(),
                        size - 2) > LEAST_P  # fmt: skip


def test_inputs_and_targets_are_drawn_independently() -> None:
    inputs, targets, component = budgets()
    for name in LENGTHS:  # grids have less room for targets where they gave inputs
        index = DOMAINS.index(name)
        every = component == 1
        seen, asked = inputs[every, index], targets[every, index]
        cells = [torch.searchsorted(torch.tensor([1, 4, 12, 30]), each) for each in (seen, asked)]
        assert (
            independence_p(torch.bincount(5 * cells[0] + cells[1], minlength=25).view(5, 5))
            > LEAST_P
        )
    pixels = inputs[:, DOMAINS.index("rgb@224")]
    assert (pixels[component == 0] == 128).all()
    assert 0.48 < component.double().mean() < 0.52


def test_what_the_published_law_leaves_empty_the_efficient_law_fills() -> None:
    selection = masked()
    assert 0.02 < (selection.input_modality == PADDING).double().mean() < 0.10
    assert 0.10 < (selection.target_modality == PADDING).double().mean() < 0.18
