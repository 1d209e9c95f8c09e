"""What people see while a job runs: one line a step, with rate and time left, on stderr."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# lines are never broken: what is printed is copied, searched and read by programs
console = Console(stderr=True, soft_wrap=True)

_SECONDS_BETWEEN_LINES = 30.0


class RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """The rate, or a dash before there is one."""
        speed = task.finished_speed or task.speed
        return Text("–/s" if speed is None else f"{speed:,.1f}/s", style="cyan")


class Steps:
    """A bar for each named piece of work; on anything but a terminal, a line now and then, and one
    when a piece is finished.

    >>> with Steps({"depth": 2}) as steps:
    ...     steps.advance("depth", 2)
    """

    def __init__(self, totals: Mapping[str, int], title: str = "") -> None:
        self._live = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="yellow"),
            console=console,
            disable=not self._live,
        )
        self._failed = dict.fromkeys(totals, 0)
        self._last_line = time.monotonic()
        self._tasks = {
            name: self._progress.add_task(name, total=total, note="")
            for name, total in totals.items()
        }
        if title:
            console.print(title, style="bold", highlight=False)

    def __enter__(self) -> "Steps":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, name: str, done: int, failed: int = 0, note: str = "") -> None:
        """Count finished units; failed ones among them are shown apart."""
        if not done:
            return
        task = self._tasks[name]
        self._failed[name] += failed
        if self._failed[name]:
            note = f"{self._failed[name]} failed {note}".strip()
        self._progress.update(task, advance=done, note=note)
        if not self._live:
            self._print_line(self._progress.tasks[task], note)

    def _print_line(self, task: Task, note: str) -> None:
        now = time.monotonic()
        if not task.finished and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        elapsed, total = task.elapsed or 0.0, task.total or 0
        rate = task.completed / max(elapsed, 1e-9)
        if task.finished:
            text = f"{int(task.completed)} in {elapsed:.1f} s ({rate:.1f}/s)"
        else:
            left = (total - task.completed) / max(rate, 1e-9)
            text = f"{int(task.completed)} of {int(total)} ({rate:.1f}/s, {left:.0f} s left)"
        console.print(f"  {task.description}: {text} {note}".rstrip(), highlight=False)
