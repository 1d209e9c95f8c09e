"""What took how long, for the table at the end of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Timing:
    """One piece of work.

    Attributes:
        stage: `ingest`, `label`, `train tokenizers`, `tokenize`, …
        what: the step, or `""` for the stage as a whole.
        items: samples, of which `failed` failed.
        seconds: wall-clock time of a stage; time of all workers together for a step.
    """

    stage: str
    what: str = ""
    items: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass
class Timings:
    """Rows in the order of the work; stages that had nothing to do leave none."""

    rows: list[Timing] = field(default_factory=list)

    def add(self, stage: str, what: str, items: int, failed: int, seconds: float) -> None:
        """Note one piece of work."""
        self.rows.append(Timing(stage, what, items, failed, round(seconds, 2)))

    @contextmanager
    def stage(self, name: str) -> Iterator[Timing]:
        """Measure a stage; its row can be filled in while it runs."""
        row = Timing(name)
        self.rows.append(row)
        started = time.perf_counter()
        try:
            yield row
        finally:
            row.seconds = round(time.perf_counter() - started, 2)

    def as_json(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries."""
        return [asdict(each) for each in self.rows]
