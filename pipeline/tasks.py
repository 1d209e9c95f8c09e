"""Independent pieces of work on Ray: some at once, each as often as workers die, results as they
come."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from fourmill.manifests.errors import FourmillError

MAX_RETRIES = 2  # of a call whose worker died


def share(value: Any) -> Any:
    """A value that calls get without sending it again for each."""
    return ray.put(value)


def run_tasks(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    at_once: int | None = None,
    in_order: bool = False,
) -> Iterator[Any]:
    """Results of the function for each call's arguments, in the order in which they are done.

    Args:
        at_once: calls that run at the same time; `None` for as many as there are CPUs.
        in_order: results come in the order of the calls.

    Raises:
        FourmillError: of the function; calls that are under way end on their own.
    """
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(function)
    left = list(reversed(calls))
    waiting: list[Any] = []
    while left or waiting:
        while left and (at_once is None or len(waiting) < at_once):
            waiting.append(task.remote(*left.pop()))
        if in_order:
            finished, waiting = waiting[:1], waiting[1:]
        else:
            finished, waiting = ray.wait(waiting, num_returns=1)
        try:
            yield from ray.get(finished)
        except RayTaskError as error:
            if isinstance(error.cause, FourmillError):
                raise error.cause from error
            raise
