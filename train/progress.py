"""How far a training is, told while it runs: a bar where there is a terminal, lines elsewhere."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal


@dataclass(frozen=True)
class Progress:
    """What is reported after each step."""

    step: int
    steps: int
    samples_per_second: float
    loss: float | None = None


OnProgress = Callable[[Progress], None]


@contextmanager
def progress_bar(title: str, steps: int) -> Iterator[OnProgress]:
    """What shows progress for the time of a training."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="cyan"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    is_terminal = sys.stderr.isatty()
    with Bar(*columns, console=Console(stderr=True), disable=not is_terminal) as bar:
        task = bar.add_task(title, total=steps, note="")

        def report(progress: Progress) -> None:
            note = f"{progress.samples_per_second:.1f} samples/s"
            if progress.loss is not None:
                note += f", loss {progress.loss:.3f}"
                if not is_terminal:
                    say(f"  step {progress.step} of {progress.steps}: {note}")
                bar.update(task, note=note)
            bar.update(task, completed=progress.step)

        yield report


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """What shows how many of some pieces of work are done, at what rate, and the time left.

    Yields:
        What is to be told how many more are done.
    """
    columns = (
        TextColumn("{task.description:>20}"), BarColumn(bar_width=32), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="cyan"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    is_terminal = sys.stderr.isatty()
    with Bar(*columns, console=Console(stderr=True), disable=not is_terminal) as bar:
        task = bar.add_task(title, total=total, note="")
        began = told = time.monotonic()
        done = 0

        def count(more: int) -> None:
            nonlocal done, told
            done, now = done + more, time.monotonic()
            rate = done / max(now - began, 1e-9)
            bar.update(task, completed=done, note=f"{rate:.1f}/s")
            if not is_terminal and (done == total or now - told > _SECONDS_BETWEEN_LINES):
                left = f", {(total - done) / rate:.0f} s left" if done < total else ""
                say(f"  {title}: {done} of {total} ({rate:.1f}/s{left})")
                told = now

        yield count


def say(text: str) -> None:
    """A line for people, who read standard error."""
    sys.stderr.write(text + "\n")


def tell_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    """What would be trained: lines for people, or one JSON value for programs."""
    if as_json:
        write_json(plan)
        return
    for name, value in plan.items():
        say(f"{name:>10}  {', '.join(value) if isinstance(value, list) else value}")


def write_json(value: Mapping[str, Any]) -> None:
    """A JSON value for programs, which read standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
