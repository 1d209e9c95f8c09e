"""A function of one shard applied to many: here while that is little, else by Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")

_FEW = 2_000  # samples that are done sooner than Ray is started


def over_shards(
    function: Callable[..., Result],
    calls: Sequence[tuple[Any, ...]],
    samples: int,
    address: str | None = None,
) -> Iterator[Result]:
    """The results of `function(*call)` for each call, in the order of the calls.

    Args:
        samples: that all calls together look at; decides whether Ray is worth its start.
        address: of a Ray cluster, which is then used however little there is to do.
    """
    if address is None and samples <= _FEW:
        yield from (function(*call) for call in calls)
        return
    from fourmill.pipeline.tasks import run_tasks
    from fourmill.pipeline.workers import ray_session

    with ray_session(address):
        yield from run_tasks(function, calls, in_order=True)
