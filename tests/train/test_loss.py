"""A step never asks its device for a value: it would have to wait until all is computed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.train.reference import DOMAINS, masked_batch, micro_model
from torch.utils._python_dispatch import TorchDispatchMode

from fourmill.train.loss import compute_loss, count_targets

ASKING = {"_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "unique"}


class NoQuestions(TorchDispatchMode):
    """Refuses what a GPU has to be waited for, copies from ordinary memory included."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.__name__.split(".")[0]
        assert name not in ASKING, name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("weighting", ["mod_global", "token", "token_vocab"])
def test_forward_and_backward_ask_nothing(weighting: str) -> None:
    model, batch = micro_model(), masked_batch()
    own = count_targets(DOMAINS, batch).tolist()
    with NoQuestions():
        loss = compute_loss(model, batch, weighting, own=own)
        loss.total.backward()
    assert torch.equal(loss.counts, torch.tensor(own))


@pytest.mark.parametrize("weighting", ["mod_global", "token", "token_vocab"])
def test_losses_of_parts_add_up(weighting: str) -> None:
    model, batch = micro_model(), masked_batch()
    tensors = {name: each for name, each in vars(batch).items() if isinstance(each, torch.Tensor)}
    parts = [
        replace(
            batch,
            **{name: each[rows] for name, each in tensors.items()},
            continuous={name: each[rows] for name, each in batch.continuous.items()},
        )
        for rows in (slice(0, 5), slice(5, None))
    ]
    counts = count_targets(DOMAINS, batch)
    whole = compute_loss(model, batch, weighting)
    found = [compute_loss(model, each, weighting, counts) for each in parts]
    torch.testing.assert_close(found[0].total + found[1].total, whole.total)
    torch.testing.assert_close(found[0].sums + found[1].sums, whole.sums)
