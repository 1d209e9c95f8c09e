"""Losses by step, as lines of JSON: what curves are drawn from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourmill.train.loss import Loss
from fourmill.train.runs import replace_file


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


class MetricsLog:
    """The file `metrics.jsonl` of a run.

    Args:
        step: where the run goes on; lines of later steps, of a run that was killed, are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        kept = [json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "".join(kept).encode())

    def write(self, kind: str, step: int, losses: dict[str, float], **more: Any) -> None:
        """Add a line; its `loss` is the mean over modalities."""
        loss = sum(losses.values()) / max(1, len(losses))
        line = {"kind": kind, "step": step, "loss": loss, "by_modality": losses, **more}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; a last one that was cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def fill_share(modality: Tensor) -> float:
    """Share of the slots of a selection that hold a token."""
    return float((modality >= 0).to(torch.float32).mean())
