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

_SECONDS_BETWEEN_LINES = 15


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
def sample_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """What shows how many samples are done: called with how many more are."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    is_terminal = sys.stderr.isatty()
    done, told = 0, time.monotonic()
    with Bar(*columns, console=Console(stderr=True), disable=not is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def report(more: int) -> None:
            nonlocal done, told
            done += more
            bar.update(task, completed=done)
            if not is_terminal and time.monotonic() > told + _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                say(f"  {title}: {done:,} of {total:,} samples")

        yield report


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
