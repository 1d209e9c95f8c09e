"""The search for samples that kill their workers finds them, all of them, and nobody else."""

import pytest

from fourmill.pipeline.inquest import MAX_AUTOPSIES, MAX_SEARCHES, Inquest
from fourmill.pipeline.units import WHOLE, Trial


class Block:
    """Thirty-two rows, some of which kill, alone or in batches that are too large."""

    def __init__(self, killers=(), largest_batch=32, killed_from_outside=0):
        self.killers = set(killers)
        self.largest_batch = largest_batch
        self.killed_from_outside = killed_from_outside
        self.inquest = Inquest(32)
        self.deaths = 0

    def search(self) -> bool:
        """Whether the block ran in the end."""
        trials = [WHOLE]
        while trials:
            trial = trials.pop(0)
            survives = self._survives(trial)
            if trial is WHOLE and survives:
                return True
            trials += self._next(trial, survives)
        return False

    def _next(self, trial: Trial, survives: bool) -> list[Trial]:
        if trial.is_autopsy:
            return self.inquest.autopsy_told(trial, "" if survives else "it exits with code 1")
        if survives:
            return self.inquest.trial_survived()
        self.deaths += 1
        return self.inquest.whole_died() if trial is WHOLE else self.inquest.trial_died(trial)

    def _survives(self, trial: Trial) -> bool:
        if self.killed_from_outside:
            self.killed_from_outside -= 1
            return False
        rows = set(range(32)) - set(self.inquest.guilty) if trial is WHOLE else set(trial.rows)
        batch = min(len(rows), 32 // self.inquest.divisor)
        return not rows & self.killers and batch <= self.largest_batch


@pytest.mark.parametrize("killers", [[7], [0, 31], [3, 4, 5, 20], range(32)])
def test_exactly_the_guilty_are_found(killers):
    block = Block(killers)
    assert block.search()
    assert block.inquest.guilty == dict.fromkeys(killers, "it exits with code 1")


def test_one_killer_among_thirty_two_costs_few_workers():
    block = Block([13])
    block.search()
    assert block.deaths == 2 + 4  # the block twice, then parts of 16, 8, 4 and 2; one is autopsied


def test_a_worker_that_somebody_else_killed_costs_one_more_try():
    block = Block(killed_from_outside=1)
    assert block.search()
    assert block.deaths == 1
    assert block.inquest.guilty == {}


def test_batches_that_are_too_large_for_the_machine_get_smaller():
    block = Block(largest_batch=16)
    assert block.search()
    assert block.inquest.divisor == 2
    assert block.inquest.guilty == {}


def test_a_block_that_always_dies_though_its_parts_live_is_given_up():
    block = Block(largest_batch=0)
    block._survives = lambda trial: trial is not WHOLE
    assert not block.search()
    assert block.deaths == 2 + MAX_SEARCHES


def test_a_sample_that_kills_whoever_watches_its_autopsy_is_guilty():
    inquest = Inquest(1)
    assert inquest.whole_died() == [WHOLE]
    (autopsy,) = inquest.whole_died()
    for _ in range(MAX_AUTOPSIES):
        (autopsy,) = inquest.trial_died(autopsy)
        assert autopsy == Trial((0,), is_autopsy=True)
    assert inquest.trial_died(autopsy) == [WHOLE]
    assert list(inquest.guilty) == [0]
