"""Work that another thread does before its result is asked for."""

import threading
import time
from collections.abc import Iterator

import pytest

from fourmill.train.prefetch import Ahead


def test_an_error_comes_where_its_result_would_have_come() -> None:
    def invert(number: int) -> float:
        return 1 / number

    ahead = Ahead(invert, [4, 2, 0, 1], depth=3)
    assert [next(ahead), next(ahead)] == [0.25, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    with pytest.raises(StopIteration):  # what came after it was given up
        next(ahead)


def test_only_so_many_parts_are_begun_before_they_are_asked_for() -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    ahead = Ahead(str, numbers(), depth=2)
    assert [next(ahead) for _ in range(5)] == list("01234")
    assert taken == list(range(7))


def test_the_thread_ends_when_the_caller_stops_early() -> None:
    worker: list[threading.Thread] = []

    def note(number: int) -> int:
        worker.append(threading.current_thread())
        return number

    ahead = Ahead(note, range(100), depth=2)
    next(ahead)
    assert worker[0] is not threading.current_thread()
    del ahead
    worker[0].join(timeout=10)
    assert not worker[0].is_alive()


def test_seconds_that_the_caller_waited_are_told() -> None:
    release = threading.Event()

    def wait(number: int) -> int:
        release.wait(timeout=10)
        return number

    ahead = Ahead(wait, [0], depth=1)
    threading.Timer(0.05, release.set).start()
    began = time.monotonic()
    next(ahead)
    assert 0.04 < ahead.waited <= time.monotonic() - began
