"""Cross-entropy in pieces is cross-entropy."""

import pytest
import torch
from torch.nn import functional as F

from fourmill.train.cross_entropy import summed_cross_entropy


def problem(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 16, generator=generator).requires_grad_()
    weight = torch.randn(50, 16, generator=generator).requires_grad_()
    return x, weight, torch.randint(50, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [0, 1, 7, 64])
@pytest.mark.parametrize("most_logits", [1, 350, 10**6])
def test_value_and_gradients_are_those_of_torch(rows: int, most_logits: int) -> None:
    x, weight, label = problem(rows)
    plain = 0.3 * F.cross_entropy(x @ weight.T, label, reduction="sum")
    expected = torch.autograd.grad(plain, (x, weight))
    ours = 0.3 * summed_cross_entropy(x, weight, label, most_logits)
    torch.testing.assert_close(ours, plain)
    for found, wanted in zip(torch.autograd.grad(ours, (x, weight)), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_in_bfloat16_sums_are_in_float32() -> None:
    x, weight, label = problem(64)
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_cross_entropy(x, weight, label, 1000)
    logits = (x.bfloat16() @ weight.bfloat16().T).float()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits, label, reduction="sum"))
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_gradients_of_what_is_sure_stay_exact_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 64, generator=generator).bfloat16().float().requires_grad_()
    label = torch.randint(50, (64,), generator=generator)
    x = (0.15 * weight.detach()[label]).bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_cross_entropy(x, weight, label)
    found = torch.autograd.grad(loss, (x, weight))
    exact = F.cross_entropy(x.double() @ weight.double().T, label, reduction="sum")
    assert float(exact.detach()) < 0.1 * len(label)
    for one, other in zip(found, torch.autograd.grad(exact, (x, weight)), strict=True):
        assert (one - other).norm() < 0.03 * other.norm()


def test_without_gradients_nothing_is_kept() -> None:
    x, weight, label = problem(64)
    with torch.no_grad():
        loss = summed_cross_entropy(x, weight, label)
    assert not loss.requires_grad
    summed_cross_entropy(x.detach(), weight, label).backward()
    assert weight.grad is not None
