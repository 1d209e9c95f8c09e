"""Cross-entropy in pieces, of several heads, is cross-entropy."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fourmill.train.cross_entropy import Head, cross_entropies

WEIGHT = torch.tensor([0.3, 0.01, 2.0, 1.0])
APART = (Head(5, 20, 7), Head(20, 60, 0), Head(60, 90, 20), Head(92, 100, 1))
SHARED = (Head(0, 40, 7), Head(0, 40, 9), Head(60, 90, 0), Head(90, 100, 1))
TANGLED = (Head(0, 40, 7), Head(0, 30, 9), Head(60, 90, 0), Head(90, 100, 1))


def problem(heads: tuple[Head, ...]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = sum(each.rows for each in heads)
    x = torch.randn(rows, 16, generator=generator).requires_grad_()
    table = torch.randn(100, 16, generator=generator).requires_grad_()
    labels = [
        torch.randint(each.stop - each.start, (each.rows,), generator=generator) for each in heads
    ]
    return x, table, torch.cat(labels)


def plainly(x: Tensor, table: Tensor, label: Tensor, heads: tuple[Head, ...]) -> Tensor:
    """Cross-entropy by head."""
    sums, first = [], 0
    for each in heads:
        rows = slice(first, first + each.rows)
        logits = x[rows] @ table[each.start : each.stop].T
        sums.append(F.cross_entropy(logits.float(), label[rows], reduction="sum"))
        first += each.rows
    return torch.stack(sums)


@pytest.mark.parametrize("heads", [APART, SHARED, TANGLED])
@pytest.mark.parametrize("most_logits", [1, 250, 10**6])
def test_values_and_gradients_are_those_of_torch(heads, most_logits: int) -> None:
    x, table, label = problem(heads)
    expected = plainly(x, table, label, heads)
    total, sums = cross_entropies(x, table, label, heads, WEIGHT, most_logits)
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(total, (WEIGHT * expected).sum())
    wanted = torch.autograd.grad(0.7 * (WEIGHT * expected).sum(), (x, table))
    for one, other in zip(torch.autograd.grad(0.7 * total, (x, table)), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_in_bfloat16_sums_are_in_float32() -> None:
    x, table, label = problem(APART)
    with torch.autocast("cpu", torch.bfloat16):
        total, sums = cross_entropies(x, table, label, APART, WEIGHT, 250)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, plainly(x.bfloat16(), table.bfloat16(), label, APART))
    total.backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_gradients_of_what_is_sure_stay_exact_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 64, generator=generator).bfloat16().float().requires_grad_()
    label = torch.randint(50, (64,), generator=generator)
    x = (0.15 * table.detach()[label]).bfloat16().float().requires_grad_()
    heads = (Head(0, 50, 64),)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = cross_entropies(x, table, label, heads, torch.ones(1))
    found = torch.autograd.grad(total, (x, table))
    exact = plainly(x.double(), table.double(), label, heads)[0]
    assert float(exact.detach()) < 0.1 * len(label)
    for one, other in zip(found, torch.autograd.grad(exact, (x, table)), strict=True):
        assert (one - other).norm() < 0.03 * other.norm()


def test_without_gradients_nothing_is_kept() -> None:
    x, table, label = problem(APART)
    with torch.no_grad():
        total, _ = cross_entropies(x, table, label, APART, WEIGHT)
    assert not total.requires_grad
    cross_entropies(x.detach(), table, label, APART, WEIGHT)[0].backward()
    assert table.grad is not None
