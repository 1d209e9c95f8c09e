"""Which samples of a block kill the process that works on them.

A worker that dies may have been killed by a sample (a codec that segfaults), by the size of a
batch (the machine's memory), or by somebody else. The first death is taken for the last of these
and the block is tried again. After a second one the block is halved, and halves that die are halved
again; a single sample is then run in a child process, whose end tells the cause. Outcomes of parts
are thrown away: once the guilty rows are known, the whole block runs again without them, so that
its bytes do not depend on how they were found.
"""

from collections.abc import Sequence

from fourmill.pipeline.units import WHOLE, Trial

MAX_SEARCHES = 3
MAX_AUTOPSIES = 3


class Inquest:
    """The search through one block at one stage.

    Attributes:
        guilty: rows that kill, with what was seen.
        divisor: of the batch size; raised when parts live and the whole does not.
    """

    def __init__(self, num_rows: int) -> None:
        self.guilty: dict[int, str] = {}
        self.divisor = 1
        self._num_rows = num_rows
        self._deaths = 0
        self._searches = 0
        self._open = 0
        self._found = 0
        self._autopsies: dict[int, int] = {}

    def whole_died(self) -> list[Trial]:
        """What to try after the block killed its worker; nothing if all has been tried."""
        self._deaths += 1
        if self._deaths == 1:
            return [WHOLE]
        if self._searches == MAX_SEARCHES:
            return []
        self._searches += 1
        self._found = 0
        return self._halves([row for row in range(self._num_rows) if row not in self.guilty])

    def trial_survived(self) -> list[Trial]:
        """What to try after a part did no harm."""
        self._open -= 1
        return self._conclusion()

    def trial_died(self, trial: Trial) -> list[Trial]:
        """What to try after a part killed its worker, or the worker that watched an autopsy."""
        assert trial.rows is not None
        self._open -= 1
        if len(trial.rows) > 1:
            return self._halves(trial.rows)
        (row,) = trial.rows
        self._autopsies[row] = self._autopsies.get(row, 0) + 1
        if self._autopsies[row] > MAX_AUTOPSIES:
            return self._convict(row, "its worker died again and again")
        return self._ask([Trial((row,), is_autopsy=True)])

    def autopsy_told(self, trial: Trial, cause: str) -> list[Trial]:
        """What to try after a row was run in a child process.

        Args:
            cause: of the child's death; empty if it lived.
        """
        assert trial.rows is not None
        self._open -= 1
        return self._convict(trial.rows[0], cause) if cause else self._conclusion()

    def abandon(self) -> None:
        """Forget the trials that are under way, because the block is worked on anew."""
        self._open = 0

    def _convict(self, row: int, cause: str) -> list[Trial]:
        self.guilty[row] = cause
        self._found += 1
        return self._conclusion()

    def _halves(self, rows: Sequence[int]) -> list[Trial]:
        middle = len(rows) // 2
        parts = [tuple(rows[:middle]), tuple(rows[middle:])]
        return self._ask([Trial(each, is_autopsy=len(each) == 1) for each in parts if each])

    def _ask(self, trials: list[Trial]) -> list[Trial]:
        self._open += len(trials)
        return trials

    def _conclusion(self) -> list[Trial]:
        if self._open:
            return []
        if not self._found:
            self.divisor *= 2
        return [WHOLE]
