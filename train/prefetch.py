"""Work that is done in another thread, some steps before its result is asked for."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Part = TypeVar("Part")
Made = TypeVar("Made")


class Ahead(Iterator[Made], Generic[Part, Made]):
    """What is made of parts, in their order, by a thread that works while the caller does.

    What a part raises is raised where its result would have come. Whoever stops early may `close`;
    the thread ends with the iterator in any case.

    Args:
        depth: parts that are begun before their result is asked for.

    Attributes:
        waited: seconds that the caller has waited for results.
    """

    def __init__(self, make: Callable[[Part], Made], parts: Iterable[Part], depth: int) -> None:
        self._make = make
        self._parts = iter(parts)
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._begun: deque[Future[Made]] = deque()
        self.waited = 0.0

    def __next__(self) -> Made:
        began = time.monotonic()
        while len(self._begun) <= self._depth and (part := next(self._parts, None)) is not None:
            self._begun.append(self._pool.submit(self._make, part))
        if not self._begun:
            self.close()
            raise StopIteration
        try:
            return self._begun.popleft().result()
        except BaseException:
            self.close()
            raise
        finally:
            self.waited += time.monotonic() - began

    def close(self) -> None:
        """Give up what was begun."""
        self._begun.clear()
        self._parts = iter(())
        self._pool.shutdown(wait=False, cancel_futures=True)
