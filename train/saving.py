"""Checkpoints of any run: written aside and renamed, so that what is there is whole; tensors only.

out/checkpoints/step-00000200/      what the run puts in: weights, optimizer, state.json
out/best                            link to the checkpoint with the lowest loss on `val`

A checkpoint is copied at once and written while the training goes on.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from safetensors import SafetensorError
from torch import Tensor

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train import runs
from fourmill.train.tensor_files import write_tensors

_log = logging.getLogger(__name__)
_Loaded = TypeVar("_Loaded")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_STATE = "state.json"


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        step: finished steps; order, crops, draws and learning rate follow from it.
        seconds: spent on them so far, over all restarts.
        val_loss: of the evaluation after this step, where there was one.
    """

    step: int
    seconds: float
    val_loss: float | None = None


@dataclass(frozen=True)
class Contents:
    """One safetensors file of a checkpoint."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Saver:
    """Writes the checkpoints of a run, one at a time, beside the training.

    A context: at its end all is written.

    Args:
        keep: so many of the last ones stay; and the best one.
    """

    def __init__(self, out: Path, keep: int) -> None:
        self._out = out
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()

    def save(self, state: State, files: Mapping[str, Contents]) -> None:
        """Copy tensors, and begin to write them; the one before is finished first.

        Raises:
            TrainingError: the one before could not be written.
        """
        self.wait()
        copied = {
            name: Contents(
                {key: _copy(value) for key, value in each.tensors.items()}, each.metadata
            )
            for name, each in files.items()
        }
        self._writing = self._pool.submit(_write, self._out, state, copied, self._keep)

    def wait(self) -> None:
        """Until what was begun is written.

        Raises:
            TrainingError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        # safetensors has errors of its own for what the system says
        except (OSError, SafetensorError) as error:
            is_full = getattr(error, "errno", None) in _FULL or "No space left" in str(error)
            why = "the disk is full: free some space" if is_full else str(error)
            raise TrainingError(
                f"{self._out}: the checkpoint cannot be written: {why}; then start again, which "
                f"goes on from the one before"
            ) from error


def load_last(out: Path, load: Callable[[Path, State], _Loaded]) -> State | None:
    """Load the last checkpoint that can be read; `None` where there is none at all.

    Raises:
        TrainingError: there are some, but none can be read.
    """
    found = runs.checkpoints(out)
    for place in found:
        try:
            state = _read_state(place)
            load(place, state)
            return state
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConfigError) as error:
            _log.warning("%s cannot be read (%s): going back to the one before", place, error)
    if found:
        raise TrainingError(
            f"{out}: none of its {len(found)} checkpoints can be read; begin anew with --fresh"
        )
    return None


def best_checkpoint(out: Path) -> Path | None:
    """The checkpoint with the lowest loss on `val`, of those that were evaluated."""
    link = out / "best"
    return out / "checkpoints" / link.readlink().name if link.is_symlink() else None


def _write(out: Path, state: State, files: Mapping[str, Contents], keep: int) -> None:
    place = out / "checkpoints" / f"step-{state.step:08d}"
    aside = place.with_name(f".{place.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for name, each in files.items():
            write_tensors(each.tensors, aside / name, each.metadata)
        (aside / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        for path in aside.iterdir():
            _sync(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # a full disk should not stay full
        raise
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
    _point_to_best(out, place, state)
    best = best_checkpoint(out)
    for old in runs.checkpoints(out)[keep:]:
        if old != best:
            shutil.rmtree(old)


def _point_to_best(out: Path, place: Path, state: State) -> None:
    if state.val_loss is None:
        return
    best = best_checkpoint(out)
    if best is not None and best != place:
        before = _read_state(best).val_loss
        if before is not None and before <= state.val_loss:
            return
    aside = out / ".best"
    aside.unlink(missing_ok=True)
    aside.symlink_to(place.relative_to(out))
    aside.replace(out / "best")


def _read_state(place: Path) -> State:
    return State(**json.loads((place / _STATE).read_text(encoding="utf-8")))


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
