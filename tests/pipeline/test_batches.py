"""No sample harms another: not by an error, not by its size, not by what it lacks."""

import ctypes
import os
import signal

import pytest
import torch

from fourmill.manifests.errors import SampleError
from fourmill.pipeline.autopsy import cause_of_death
from fourmill.pipeline.batches import Batches
from fourmill.pipeline.steps import Step


class Doubles(Step):
    """Twice the number, on a device that holds so many samples at a time."""

    name = "doubles"
    reads = ("number",)
    writes = ("double",)

    def __init__(self, holds: int = 1000) -> None:
        self.holds = holds
        self.batches: list[int] = []

    def producer(self):
        raise NotImplementedError

    def load(self, device: str) -> None:
        pass

    def run(self, batch):
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(batch))
        return [{"double": [2 * each["number"]]} for each in batch]


def _samples(*numbers):
    return [{"number": each} for each in numbers]


def test_a_device_that_is_too_small_gets_smaller_batches_from_then_on():
    step = Doubles(holds=5)
    batches = Batches(step)
    found = batches.run(_samples(*range(32)))
    assert [each["double"] for each in found] == [[2 * each] for each in range(32)]
    assert step.batches == [4] * 8
    assert batches.size == 4
    batches.run(_samples(*range(8)))
    assert step.batches == [4] * 10


def test_a_sample_that_is_too_large_alone_fails_alone():
    (found,) = Batches(Doubles(holds=0)).run(_samples(1))
    assert isinstance(found, SampleError)
    assert "too little memory" in found.reason


def test_what_is_excluded_missing_or_unreadable_is_not_run_and_says_why():
    step = Doubles()
    unreadable = SampleError("decode", "it is truncated")
    samples = _samples(1, None, unreadable, 4)
    found = Batches(step).run(samples, excluded={3: SampleError("doubles", "it kills")})
    assert found[0] == {"double": [2]}
    assert "it needs number" in str(found[1])
    assert found[2] is unreadable
    assert str(found[3]) == "doubles: it kills"
    assert step.batches == [1]


def test_one_bad_sample_of_a_batch_is_found():
    found = Batches(Doubles()).run(_samples(1, "x", None, 3, {}))
    assert [isinstance(each, SampleError) for each in found] == [False, False, True, False, True]
    assert "TypeError" in str(found[4])


@pytest.mark.parametrize(
    ("deed", "argument", "words"),
    [
        (ctypes.string_at, 0, ["SIGSEGV", "string_at (__init__.py:"]),
        (os._exit, 3, ["exits with code 3"]),
        (os.abort, None, ["SIGABRT"]),
        (os.kill, signal.SIGKILL, ["SIGKILL", "ran out of memory"]),
        (len, 0, []),
    ],
)
def test_an_autopsy_tells_what_kills_a_process(deed, argument, words):
    cause = cause_of_death(_do, deed, argument)
    assert all(each in cause for each in words)
    assert bool(cause) == bool(words)


def test_a_child_that_cannot_begin_accuses_nobody():
    class Unreadable:
        def __reduce__(self):
            return int, ("not a number",)

    with pytest.raises(RuntimeError, match="not a number"):
        cause_of_death(len, Unreadable())


def _do(deed, argument):
    if deed is os.kill:
        deed(os.getpid(), argument)
    elif argument is None:
        deed()
    else:
        deed(argument)
