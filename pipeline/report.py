"""What a wave did, and what stops it."""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from fourmill.manifests.errors import FourmillError
from fourmill.pipeline import faults
from fourmill.pipeline.units import Done, Unit

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""Called with (step, samples done, samples failed) whenever a block is finished."""


@dataclass
class Report:
    """Counts of a wave.

    Attributes:
        samples: run through each step, and how many of them failed.
        busy_seconds: time in each step, summed over workers.
        deaths: of workers, whatever the cause.
        batch_sizes: of steps whose device had too little memory for what they declare.
        given_up: shards that could not be finished, with the unit that failed and why.
    """

    samples: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busy_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall_seconds: float = 0.0
    deaths: int = 0
    batch_sizes: dict[str, int] = field(default_factory=dict)
    given_up: dict[int, str] = field(default_factory=dict)
    _samples_in_a_row: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _shards_in_a_row: int = 0

    def count(self, step: str, done: Done) -> None:
        """Note a block.

        Raises:
            FourmillError: samples fail one after another.
        """
        self.samples[step] += done.samples
        self.failed[step] += done.failed
        self.busy_seconds[step] += done.seconds
        row = self._samples_in_a_row
        row[step] = row[step] + done.failed if done.failed == done.samples else 0
        if row[step] >= faults.MAX_FAILED_SAMPLES_IN_A_ROW:
            raise FourmillError(
                f"{step}: the last {row[step]} samples failed one after another, the last one with "
                f"“{done.reason}”: the labeler or the data is likely broken; what was committed "
                f"stays"
            )

    def note_batch_size(self, step: str, size: int, declared: int) -> None:
        """Say that a device has too little memory, once for each size."""
        if size and size < self.batch_sizes.get(step, declared):
            self.batch_sizes[step] = size
            log.warning(
                "%s: the device ran out of memory with batches of %d samples; it goes on with %d",
                step, declared, size,
            )  # fmt: skip

    def committed(self) -> None:
        """Note that a shard of a version is on the disk."""
        self._shards_in_a_row = 0

    def give_up(self, unit: Unit, reason: str) -> None:
        """Note a shard that cannot be finished.

        Raises:
            FourmillError: shards fail one after another.
        """
        self.given_up[unit.shard] = f"{unit}: {reason}"
        log.error("shard %d cannot be finished: %s: %s", unit.shard, unit, reason)
        self._shards_in_a_row += 1
        if self._shards_in_a_row >= faults.MAX_FAILED_SHARDS_IN_A_ROW:
            raise FourmillError(
                f"the last {self._shards_in_a_row} shards failed one after another, the last one "
                f"at {self.given_up[unit.shard]}; the store or the labeler is likely broken; what "
                f"was committed stays"
            )

    def refuse_gaps(self, num_shards: int) -> None:
        """Complain if shards were given up.

        Raises:
            FourmillError: it says which, and why.
        """
        if not self.given_up:
            return
        listing = "".join(f"\n  {reason}" for reason in list(self.given_up.values())[:10])
        more = len(self.given_up) - 10
        raise FourmillError(
            f"{len(self.given_up)} of {num_shards} shards could not be finished, the others are "
            f"committed; the same command tries these again:{listing}"
            + (f"\n  and {more} more" if more > 0 else "")
        )
