"""A training that ends in the middle, as if it had been killed there."""

from collections.abc import Callable

from fourmill.train.progress import Progress


class Stop(Exception):
    """It was to end here."""


def stop_after(step: int) -> Callable[[Progress], None]:
    """What ends a training when this step is reported."""

    def report(progress: Progress) -> None:
        if progress.step == step:
            raise Stop

    return report
