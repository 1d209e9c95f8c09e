"""What every benchmark prints: one claim a line, beside a baseline of the same run."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


def machine() -> str:
    """Where it was measured, and how busy that was."""
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    python = f"Python {platform.python_version()}"
    return f"{platform.machine()}, {platform.system()}, {python}, {load}"


@dataclass(frozen=True)
class Result:
    """One claim.

    Attributes:
        ratio: of value and baseline, whichever way the goal counts it.
        goal: to reach; 0 where none was named.
        is_at_most: whether the goal is a limit from above.
    """

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    ratio: float
    goal: float
    is_at_most: bool = False
    machine: str = field(default_factory=machine)

    @property
    def ok(self) -> bool:
        """Whether the goal is reached."""
        if not self.goal:
            return True
        return self.ratio <= self.goal if self.is_at_most else self.ratio >= self.goal

    def as_json(self) -> str:
        """One line for programs."""
        values = asdict(self) | {"ok": self.ok}
        del values["is_at_most"]
        return json.dumps(values)

    def as_text(self) -> str:
        """One line for people."""
        goal = f"{'≤' if self.is_at_most else '≥'} {self.goal:g}" if self.goal else "–"
        return (
            f"{self.name:28}{self.value:>12,.4g} {self.unit:<12}{self.baseline_value:>12,.4g}  "
            f"{self.ratio:>8.3f}  {goal:>8}  {'ok' if self.ok else 'missed':<7}{self.baseline}"
        )


def show(result: Result, as_json: bool) -> None:
    """Print it at once."""
    print(result.as_json() if as_json else result.as_text(), flush=True)


def show_parts(bench: object, parts: Sequence[str], as_json: bool) -> None:
    """Print the results of the methods of a benchmark that are named."""
    for part in parts:
        for result in getattr(bench, part)():
            show(result, as_json)
