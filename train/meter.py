"""Losses of several batches together."""

from collections.abc import Sequence

from torch import Tensor

from fourmill.train.loss import Loss


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

    def take(self) -> dict[str, float]:
        """Nats per target, by modality that had targets; then start again."""
        if self._sums is None or self._counts is None:
            return {}
        sums, counts = self._sums.tolist(), self._counts.tolist()
        self._sums = self._counts = None
        return {
            name: total / count
            for name, total, count in zip(self._names, sums, counts, strict=True)
            if count
        }
