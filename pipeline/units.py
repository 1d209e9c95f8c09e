"""The words of the engine and its workers: units of work, parts of them, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fourmill.manifests.errors import SampleError

Kind = Literal["load", "run", "encode", "block", "commit"]

Excluded = Mapping[int, SampleError]
"""Rows of a block that are not to be touched again, with the reason."""


class Unit(NamedTuple):
    """One piece of work: a block (or, to commit, a shard) at one stage, or a block at all of them.

    Attributes:
        start: row of the block's first sample in its shard.
    """

    kind: Kind
    shard: int
    start: int = 0
    step: str = ""
    modality: str = ""

    def __str__(self) -> str:
        what = self.step if self.kind == "run" else " ".join(filter(None, (self.kind, self[4])))
        where = "" if self.kind == "commit" else f" from sample {self.start}"
        return f"{what} at shard {self.shard}{where}"


@dataclass(frozen=True)
class Trial:
    """A unit, or some rows of its block, to see whether a worker survives them.

    Attributes:
        rows: within the block; `None` for all, whose outcomes count.
        is_autopsy: run in a child process, to learn what the single row does to it.
    """

    rows: tuple[int, ...] | None = None
    is_autopsy: bool = False


WHOLE = Trial()


@dataclass(frozen=True)
class Errand:
    """What a worker is asked to do with a block.

    Attributes:
        rows: of the block; the outcomes of a part are not kept.
        divisor: of the batch size, after batches of the declared size killed workers.
    """

    step: str
    rows: tuple[int, ...] | None = None
    excluded: Excluded = field(default_factory=dict)
    divisor: int = 1


@dataclass(frozen=True)
class Passage:
    """What a worker is asked to do with a block from its bytes to its labels' bytes.

    Attributes:
        modalities: to read.
        steps: to run, in order, each with those whose outcomes it reads.
        encodes: (step, modality) to encode.
    """

    url: str
    snapshot_id: str
    modalities: Sequence[str]
    shard: int
    rows: Sequence[int]
    max_side: int
    steps: Mapping[str, Sequence[str]]
    encodes: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Done:
    """What a call tells the driver; all that is large stays in the object store.

    Attributes:
        node: where it ran.
        keys: of the block that was loaded.
        seconds: that it took; of a passage, those of loading.
        steps: of a passage, what each step tells.
        reason: why the last of the failed samples failed; of an autopsy, what happened.
        batch_size: that the step now gets, where its device ran out of memory; else 0.
    """

    node: str
    keys: tuple[str, ...] = ()
    samples: int = 0
    failed: int = 0
    seconds: float = 0.0
    reason: str = ""
    batch_size: int = 0
    steps: Mapping[str, "Done"] = field(default_factory=dict)


class NotPreparedError(Exception):
    """A worker was asked to run a step that it could not load."""
