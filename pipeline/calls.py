"""How units of work become remote calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from fourmill.manifests.errors import SampleError
from fourmill.pipeline.board import Board, OpenBlock, OpenShard
from fourmill.pipeline.inquest import Inquest
from fourmill.pipeline.plan import Plan
from fourmill.pipeline.pools import Slot
from fourmill.pipeline.remote import Tasks
from fourmill.pipeline.units import WHOLE, Errand, Excluded, Passage, Trial, Unit


@dataclass(eq=False)
class Call:
    """A unit of work on its way.

    Attributes:
        block: what it works on; `None` to commit.
        trial: the whole unit, or a part of it to see whether a worker survives it.
        slot: the worker that was asked.
        made: what it makes, in the object store; of a whole block a list.
    """

    unit: Unit
    shard: OpenShard
    block: OpenBlock | None = None
    trial: Trial = WHOLE
    slot: Slot | None = None
    made: Any = None

    @property
    def inquest(self) -> Inquest | None:
        """The search for samples that kill workers at this unit, if one was begun."""
        return self.shard.inquests.get(self.unit)

    @property
    def excluded(self) -> Excluded:
        """Rows that are known to kill workers; a part of a block never holds one."""
        if self.inquest is None or self.trial.rows is not None:
            return {}
        stage = self.unit.modality or self.unit.step or "decode"
        return {
            row: SampleError(stage, f"it kills the process that works on it: {cause}")
            for row, cause in self.inquest.guilty.items()
        }


class Sender:
    """Makes the calls of one plan. Steps and writers are stored once, not sent with every call."""

    def __init__(self, plan: Plan, board: Board) -> None:
        self._plan = plan
        self._board = board
        self._tasks = Tasks()
        self._steps = {name: ray.put(each.step) for name, each in plan.steps.items()}
        self._writers = {
            modality: ray.put(writer)
            for each in plan.steps.values() for modality, writer in each.writers.items()
        }  # fmt: skip
        self._reads: dict[tuple[str, ...], list[str]] = {}
        self._max_side = max(
            (getattr(each.step, "max_side", 0) for each in plan.steps.values()), default=0
        )

    def send(self, call: Call) -> Any:
        """Begin a call; a reference to its `Done`."""
        call.made, done = getattr(self, f"_{call.unit.kind}")(call)
        return done

    def send_blocks(self, calls: Sequence[Call]) -> Any:
        """Begin calls of whole blocks, one after another in one worker; a reference to a list of
        their `Done`s."""
        slot = calls[0].slot
        assert slot is not None
        passages = [self._passage(each) for each in calls]
        count = sum(len(each.encodes) for each in passages)
        *made, done = slot.actor.blocks.options(num_returns=count + 1).remote(passages)
        left = iter(made)
        for call, passage in zip(calls, passages, strict=True):
            call.made = [next(left) for _ in passage.encodes]
        return done

    def _load(self, call: Call) -> Any:
        assert call.block is not None
        rows, part = call.block.rows, call.trial.rows
        begin = partial(
            self._tasks.load_autopsy.remote if call.trial.is_autopsy else self._tasks.load.remote,
            self._plan.url, self._plan.snapshot_id, self._modalities(call.shard.index),
            call.shard.index, rows if part is None else [rows[each] for each in part],
            self._max_side,
        )  # fmt: skip
        return begin() if call.trial.is_autopsy else begin(call.excluded)

    def _run(self, call: Call) -> Any:
        assert call.block is not None
        assert call.slot is not None
        divisor = call.inquest.divisor if call.inquest else 1
        errand = Errand(call.unit.step, call.trial.rows, call.excluded, divisor)
        actor = call.slot.actor
        method = (actor.autopsy if call.trial.is_autopsy else actor.run).options(num_returns=2)
        return method.remote(errand, *self._board.inputs(call.block, call.unit.step))

    def _passage(self, call: Call) -> Passage:
        block = call.block
        assert block is not None
        return Passage(
            self._plan.url, self._plan.snapshot_id, self._modalities(call.shard.index),
            call.shard.index, block.rows, self._max_side,
            {name: self._board.upstream(name) for name in block.steps}, self._board.encodes(block),
        )  # fmt: skip

    def _encode(self, call: Call) -> Any:
        assert call.block is not None
        name, block, rows = call.unit.step, call.block, call.trial.rows
        step, made = self._steps[name], block.outcomes[name]
        tasks: Any = self._tasks  # whose types know nothing of references
        if call.trial.is_autopsy:
            return tasks.encode_autopsy.remote(step, call.unit.modality, block.keys, rows, made)
        return tasks.encode.remote(
            step, call.unit.modality, block.keys, rows, block.seconds[name], call.excluded, made
        )

    def _commit(self, call: Call) -> Any:
        modality = call.unit.modality
        return self._tasks.commit.remote(
            self._writers[modality], call.shard.index, *call.shard.objects(modality)
        )

    def _modalities(self, shard: int) -> list[str]:
        work = tuple(self._plan.work[shard])
        if work not in self._reads:
            self._reads[work] = self._plan.stored_inputs(shard)
        return self._reads[work]
