"""The steps of a training, and what is told, judged and saved between them."""

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

from fourmill.train.processes import Process
from fourmill.train.progress import OnProgress, Progress
from fourmill.train.saving import State

_Batch = TypeVar("_Batch")


@runtime_checkable
class Paces(Protocol):
    """How often a configuration wants what."""

    @property
    def steps(self) -> int:
        """Of the whole training."""

    @property
    def batch_size(self) -> int:
        """Samples of a step."""

    @property
    def log_every(self) -> int:
        """Steps between lines of the log."""

    @property
    def eval_every(self) -> int:
        """Steps between evaluations."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""


def run_steps(
    config: Paces,
    process: Process,
    state: State,
    batches: Iterable[_Batch],
    step: Callable[[int, _Batch], None],
    tell: Callable[[int, float, float], float],
    judge: Callable[[int], float | None],
    save: Callable[[State], None],
    on_progress: OnProgress | None,
) -> None:
    """Take all steps that are left; the last one is told, judged and saved whatever its number.

    Args:
        state: how far the training is.
        batches: one a step, from the next one on.
        step: with the step's number, counted from 0.
        tell: with the number of finished steps, samples a second, and seconds of all so far; gives
            the loss.
        judge: with the number of finished steps; gives the loss on `val`, if there is one.
        save: in the first process.
    """
    first, began = state.step, time.monotonic()
    for number, batch in enumerate(batches, first):
        step(number, batch)
        done = number + 1
        seconds = time.monotonic() - began
        rate = (done - first) * config.batch_size / seconds
        is_last = done == config.steps
        is_saved = is_last or done % config.checkpoint_every == 0
        loss = val_loss = None
        if is_saved or done % config.log_every == 0:
            loss = tell(done, rate, state.seconds + seconds)
        if is_last or done % config.eval_every == 0:
            val_loss = judge(done)
        if is_saved and process.is_first:
            save(State(done, state.seconds + seconds, val_loss))
        if on_progress is not None and process.is_first:
            on_progress(Progress(done, config.steps, rate, loss))
