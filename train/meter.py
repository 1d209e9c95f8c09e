"""Losses of several batches together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fourmill.train.loss import Loss
from fourmill.train.processes import Process


class LossMeter:
    """Mean cross-entropy by modality over several batches, exact over different counts."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sums: Tensor | None = None
        self._counts: Tensor | None = None

    def add(self, loss: Loss) -> None:
        """Count a batch in; nothing is moved from the device."""
        sums = loss.sums.double()
        self._sums = sums if self._sums is None else self._sums + sums
        self._counts = loss.counts if self._counts is None else self._counts + loss.counts

    def take(self, process: Process) -> tuple[dict[str, float], dict[str, int]]:
        """What all processes counted; then start again.

        Returns:
            Nats per target, and how many targets there were, by modality that had some.
        """
        zeros = torch.zeros(len(self._names), device=process.device)
        sums = process.total(zeros.double() if self._sums is None else self._sums)
        counts = process.total(zeros.long() if self._counts is None else self._counts)
        self._sums = self._counts = None
        counted = {
            name: number
            for name, number in zip(self._names, counts.tolist(), strict=True)
            if number
        }
        totals = dict(zip(self._names, sums.tolist(), strict=True))
        return {name: totals[name] / count for name, count in counted.items()}, counted
