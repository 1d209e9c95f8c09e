"""The Ray engine: one wave of steps over the shards of a dataset.

    load (CPU task) ──> step ──> step … (actors) ──> encode (CPU task) ──> commit (CPU task)
      one block            outputs stay in              one modality         one shard of one
      of one shard         the object store             of one block         version, once

Where that way costs more than the steps do, a block stays in one worker from loading to encoding
(docs/adr/0005-light-blocks-stay-in-one-worker.md); whatever goes wrong there is tried again apart.

The driver owns every unit of work and its retries: the board says what is open, the crew who works,
and this file what happens next. Blocks in flight are bounded, so memory is bounded whatever the
size of shards and of the dataset.
"""

import heapq
import itertools
import logging
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from fourmill.manifests.errors import FourmillError
from fourmill.manifests.storage import Storage
from fourmill.pipeline import faults
from fourmill.pipeline.board import Board, Encoded, OpenBlock
from fourmill.pipeline.calls import Call, Sender
from fourmill.pipeline.crew import Crew, dead_nodes
from fourmill.pipeline.faults import Fault
from fourmill.pipeline.inquest import Inquest
from fourmill.pipeline.pace import Pace
from fourmill.pipeline.plan import Plan
from fourmill.pipeline.pools import Pool, Slot
from fourmill.pipeline.remote import Arrivals
from fourmill.pipeline.report import OnProgress, Report
from fourmill.pipeline.units import WHOLE, Done, NotPreparedError, Trial, Unit
from fourmill.pipeline.work import BLOCK_SAMPLES

log = logging.getLogger(__name__)

_STALL_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Engine:
    """Runs one plan. Use it once.

    Args:
        block_samples: of a shard that are loaded, labelled and encoded together.
    """

    def __init__(
        self,
        plan: Plan,
        on_progress: OnProgress | None = None,
        block_samples: int = BLOCK_SAMPLES,
    ) -> None:
        self._plan = plan
        self._on_progress = on_progress or (lambda *_: None)
        self._report = Report()
        self._is_on_disk = Storage(plan.url).is_local
        self._board = Board(plan, block_samples)
        self._arrivals = Arrivals()
        self._pace = Pace()
        self._later: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._blocks_in_call = 1  # of the block that was opened last

    def run(self) -> Report:
        """Do all the work of the plan, committing each (step, shard) as soon as it is complete.

        Raises:
            FourmillError: a step cannot be loaded, samples or shards fail one after another, or
                some shards could not be finished; what was committed stays.
        """
        started = heard = time.monotonic()
        names = {name for work in self._plan.work.values() for name in work}
        steps = [each.step for name, each in self._plan.steps.items() if name in names]
        self._sender = Sender(self._plan, self._board)
        self._crew = Crew(steps, self._board.remaining, self._arrivals, self._report)
        self._pools = self._crew.pools
        try:
            while not self._board.is_finished:
                self._begin()
                for handler, future in self._arrivals.take(_LOOK_SECONDS):
                    handler(future)
                    heard = time.monotonic()
                if time.monotonic() > heard + _STALL_SECONDS:
                    heard = time.monotonic()
                    log.warning("nothing has ended for a minute; %s", self._pools.describe())
        finally:
            self._pools.close()
        self._report.wall_seconds = time.monotonic() - started
        self._report.refuse_gaps(len(self._plan.work))
        return self._report

    # -- sending work out ----------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin all that can begin now."""
        limit = self._pools.open_blocks * self._blocks_in_call
        # labels wait in memory for their shard to be whole and the store to take it
        while self._board.num_open < limit and self._board.num_shards < 2 * limit:
            block = self._board.admit()
            if block is None:
                break
            stays = self._stays_together(block)
            number = self._pace.blocks_in_call(block.steps, len(block.rows)) if stays else 1
            self._blocks_in_call = number
            if stays:
                self._send(Call(block.unit("block", block.steps[0]), block.shard, block))
            else:
                self._load(block)
        while self._later and self._later[0][0] <= time.monotonic():
            self._send(heapq.heappop(self._later)[2])
        self._pools.rebalance()
        for pool in self._pools.all:
            while pool.queue:
                call = pool.queue[0]
                slot = pool.free_slot(call.block.node)
                if slot is None and self._is_wanted(call):
                    break
                pool.queue.popleft()
                if slot is None or not self._is_wanted(call):
                    continue
                if call.unit.kind == "block":
                    self._ask_for_blocks(slot, [call, *self._more_blocks(pool)])
                else:
                    self._crew.prepare(slot, call.unit.step)
                    call.slot = slot
                    slot.in_flight.append(call)
                    self._expect(call)

    def _more_blocks(self, pool: Pool) -> list[Call]:
        """Calls from the head of a queue that a worker takes with the one before them, a fair share
        of what waits."""
        share = -(-(len(pool.queue) + 1) // max(1, len(pool.working)))
        calls: list[Call] = []
        while (
            pool.queue
            and pool.queue[0].unit.kind == "block"
            and len(calls) + 1 < min(share, self._blocks_in_call)
        ):
            call = pool.queue.popleft()
            if self._is_wanted(call):
                calls.append(call)
        return calls

    def _ask_for_blocks(self, slot: Slot, calls: list[Call]) -> None:
        for call in calls:
            call.slot = slot
            for step in call.block.steps if call.block else ():
                self._crew.prepare(slot, step)
        slot.in_flight.append(calls)
        self._arrivals.expect(self._sender.send_blocks(calls), partial(self._handle_blocks, calls))

    def _stays_together(self, block: OpenBlock) -> bool:
        """Whether one worker is to do all of a block: its steps are light, and it is neither a GPU
        nor an answer of a store that somebody would wait for meanwhile."""
        pool, *others = {self._pools.of(name) for name in block.steps}
        return (
            not others
            and not pool.demand.gpus
            and self._is_on_disk
            and self._pace.is_light(block.steps, len(block.rows))
        )

    def _load(self, block: OpenBlock) -> None:
        self._send(Call(block.unit("load"), block.shard, block))

    def _send(self, call: Call) -> None:
        """Begin a call, or have it wait for a worker."""
        if not self._is_wanted(call):
            return
        if call.unit.kind in ("run", "block"):
            self._pools.of(call.unit.step).queue.append(call)
        else:
            self._expect(call)

    def _send_again(self, call: Call, trial: Trial | None = None) -> None:
        self._send(replace(call, trial=trial or call.trial, slot=None, made=None))

    def _expect(self, call: Call) -> None:
        self._arrivals.expect(self._sender.send(call), partial(self._handle, call))

    def _is_wanted(self, call: Call) -> bool:
        if call.block is not None:
            return self._board.is_current(call.block)
        return self._board.is_open(call.shard)

    # -- taking results in ---------------------------------------------------------------------

    def _handle(self, call: Call, future: "Future[Done]") -> None:
        error = future.exception()
        is_to_blame = True
        if call.slot is not None:
            is_to_blame = self._crew.take_off(call.slot, call, error)
        if not self._is_wanted(call):
            return
        if error is not None:
            self._failed(call, error, is_to_blame)
        elif call.trial is not WHOLE:
            self._tried(call, future.result())
        else:
            getattr(self, f"_after_{call.unit.kind}")(call, call.block, future.result())

    def _handle_blocks(self, calls: list[Call], future: "Future[list[Done]]") -> None:
        error = future.exception()
        slot = calls[0].slot
        assert slot is not None
        is_to_blame = self._crew.take_off(slot, calls, error)
        results = [None] * len(calls) if error is not None else future.result()
        for call, done in zip(calls, results, strict=True):
            if not self._is_wanted(call):
                continue
            if done is None:
                assert error is not None
                self._failed(call, error, is_to_blame)
            else:
                assert call.block is not None
                self._after_block(call, call.block, done)

    def _after_load(self, call: Call, block: OpenBlock, done: Done) -> None:
        self._pace.note_load(len(block.rows), done.seconds)
        for name in self._board.loaded(block, call.made, done):
            self._send(Call(block.unit("run", name), block.shard, block))

    def _after_run(self, call: Call, block: OpenBlock, done: Done) -> None:
        step = call.unit.step
        self._note(block, step, done)
        block.seconds[step] = done.seconds
        for name in self._board.ran(block, step, call.made):
            self._send(Call(block.unit("run", name), block.shard, block))
        for modality in self._board.to_encode(block.shard, block.rows.start, step):
            self._send(Call(block.unit("encode", step, modality), block.shard, block))
        self._board.close_call(block)

    def _after_encode(self, call: Call, block: OpenBlock, done: Done) -> None:
        self._keep(block, call.unit.step, call.unit.modality, Encoded(call.made, done.node))

    def _after_block(self, call: Call, block: OpenBlock, done: Done) -> None:
        self._pace.note_load(len(block.rows), done.seconds)
        encodes = self._board.encodes(block)
        for step in block.steps:
            self._note(block, step, done.steps[step])
            self._board.close_call(block)
        for (step, modality), made in zip(encodes, call.made, strict=True):
            self._keep(block, step, modality, Encoded(made, done.node))

    def _note(self, block: OpenBlock, step: str, done: Done) -> None:
        self._pace.note_run(step, done.samples, done.seconds)
        declared = self._plan.steps[step].step.resources.batch_size
        self._report.note_batch_size(step, done.batch_size, declared)
        if self._board.count(block, step):
            self._on_progress(step, done.samples, done.failed)
            self._report.count(step, done)

    def _keep(self, block: OpenBlock, step: str, modality: str, encoded: Encoded) -> None:
        is_complete = self._board.encoded(block, modality, encoded)
        self._board.close_call(block)
        if is_complete:
            unit = Unit("commit", block.shard.index, 0, step, modality)
            self._send(Call(unit, block.shard))

    def _after_commit(self, call: Call, _: None, done: Done) -> None:
        log.debug("committed shard=%d modality=%s", call.unit.shard, call.unit.modality)
        self._report.committed()
        self._board.committed(call.shard, call.unit.modality)

    # -- what goes wrong -----------------------------------------------------------------------

    def _failed(self, call: Call, error: BaseException, is_to_blame: bool) -> None:
        fault = faults.fault(error)
        waited = call.slot is not None and call.slot.is_gone and not is_to_blame
        if waited or isinstance(faults.raised(error), NotPreparedError):
            self._send_again(call)  # it only waited behind something else
        elif call.unit.kind == "block" and call.block is not None:
            log.info("%s: %s; its steps are run apart", call.unit, faults.describe(error))
            self._load(call.block)
        elif fault is Fault.LOST:
            self._rebuild(call, error)
        elif fault is Fault.DIED:
            self._died(call, error)
        elif fault is Fault.FATAL or (call.unit.kind == "run" and not faults.is_of_ray(error)):
            log.error("unit=%s\n%s", call.unit, error)
            raise _explained(call.unit, error) from error
        elif call.trial is not WHOLE:
            self._tried(call, Done(""))  # an error is no death
        else:
            self._retry(call, error, fault is Fault.TRY_AGAIN)

    def _retry(self, call: Call, error: BaseException, can_succeed: bool = True) -> None:
        """Try a unit once more after a while, or give its shard up."""
        attempts = call.shard.attempts
        attempts[call.unit] += 1
        if not can_succeed or attempts[call.unit] >= faults.MAX_ATTEMPTS:
            self._give_up(call, faults.describe(error))
            return
        seconds = faults.backoff(attempts[call.unit])
        log.warning("%s: %s; again in %g s", call.unit, faults.describe(error), seconds)
        due = time.monotonic() + seconds
        again = replace(call, slot=None, made=None)
        heapq.heappush(self._later, (due, next(self._numbers), again))

    def _died(self, call: Call, error: BaseException) -> None:
        """Find out whether a sample did it, and go on without it."""
        if call.block is None:
            self._retry(call, error)
            return
        inquest = call.shard.inquests.setdefault(call.unit, Inquest(len(call.block.rows)))
        log.warning("a worker died at %s", _part(call))
        if call.trial is not WHOLE:
            self._try(call, inquest.trial_died(call.trial))
        elif trials := inquest.whole_died():
            self._try(call, trials)
        else:
            self._give_up(call, "workers die at it again and again, and at no sample alone")

    def _tried(self, call: Call, done: Done) -> None:
        assert call.inquest is not None
        if call.trial.is_autopsy:
            if done.reason:
                log.warning("%s kills its worker: %s", _part(call), done.reason)
            self._try(call, call.inquest.autopsy_told(call.trial, done.reason))
        else:
            self._try(call, call.inquest.trial_survived())

    def _try(self, call: Call, trials: list[Trial]) -> None:
        for trial in trials:
            self._send_again(call, trial)

    def _rebuild(self, call: Call, error: BaseException) -> None:
        """Make again what was lost with a node."""
        attempts = call.shard.attempts
        attempts[call.unit] += 1
        if attempts[call.unit] > 2 * faults.MAX_ATTEMPTS:
            self._give_up(call, faults.describe(error))
            return
        log.warning("%s: what it reads was lost; it is made again", call.unit)
        if call.block is not None:
            self._load(self._board.reopen(call.block))
            return
        lost = self._board.reopen_encoded(call.shard, call.unit.modality, dead_nodes())
        for block in lost:
            self._load(block)
        if not lost:  # the node is not yet known to be gone
            self._retry(call, error)

    def _give_up(self, call: Call, reason: str) -> None:
        self._board.give_up(call.shard)
        self._report.give_up(call.unit, reason)


def _part(call: Call) -> str:
    """A unit, or the rows of it that were tried, for messages."""
    rows = call.trial.rows
    if rows is None or call.block is None:
        return str(call.unit)
    first, last = (call.block.rows[row] for row in (rows[0], rows[-1]))
    keys = call.block.keys
    sample = f"sample {keys[rows[0]] if keys else first}"
    return f"{call.unit.step or call.unit.kind} of shard {call.unit.shard}, " + (
        sample if first == last else f"samples {first} to {last}"
    )


def _explained(unit: Unit, error: BaseException) -> FourmillError:
    """What a worker raised, as one message; what one sample does to a step never comes here."""
    cause = faults.raised(error)
    if isinstance(cause, FourmillError):
        return cause
    return FourmillError(
        f"{unit.step or unit.kind} cannot go on at shard {unit.shard}: {faults.describe(error)}; "
        f"what was committed stays"
    )
