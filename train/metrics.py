"""Losses by step, as lines of JSON: what curves are drawn from. Nothing here needs torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fourmill.train.boards import Board
from fourmill.train.runs import replace_file


class MetricsLog:
    """The file `metrics.jsonl` of a run.

    Args:
        step: where the run goes on; lines of later steps, of a run that was killed, are removed.
        boards: what else gets the numbers.
    """

    def __init__(self, path: Path, step: int, boards: Sequence[Board] = ()) -> None:
        self._path = path
        self._boards = boards
        lines = read_metrics(path) if step else []
        kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "".join(kept).encode())

    def write(self, kind: str, step: int, losses: dict[str, float], **more: Any) -> None:
        """Add a line; its `loss` is the mean over modalities."""
        loss = sum(losses.values()) / max(1, len(losses))
        self.add(kind, step, loss=loss, by_modality=losses, **more)

    def add(self, kind: str, step: int, **values: Any) -> None:
        """Add a line of any values."""
        line = {"kind": kind, "step": step, **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        numbers = dict(_numbers(kind, values))
        for board in self._boards:
            board.add(step, numbers)


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}/{name}", value)
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


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


def last_losses(path: Path, kind: str) -> dict[str, float]:
    """Nats per target by modality, of the last line of a kind; empty where there is none."""
    lines = [each for each in read_metrics(path) if each["kind"] == kind]
    return dict(lines[-1]["by_modality"]) if lines else {}
