"""What of a wave is open: blocks, shards, and the objects that they hold. No Ray in here.

Blocks are opened in the order of the corpus and forgotten when their labels are encoded; a shard is
forgotten when all its versions are committed. So what the driver holds does not grow with the
dataset, and no call looks at more than its own block.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from fourmill.pipeline.inquest import Inquest
from fourmill.pipeline.plan import Plan
from fourmill.pipeline.units import Done, Unit
from fourmill.pipeline.work import BLOCK_SAMPLES


class Encoded(NamedTuple):
    """One modality of one block, in the object store, and the node that made it."""

    object: Any
    node: str


class OpenBlock:
    """Samples that are being worked on.

    Attributes:
        rows: of the shard.
        steps: that are to run on it.
        loaded: the decoded samples, in the object store; `None` until they are there.
        node: where they are.
        outcomes: of each step that has run, in the object store.
        seconds: that each step took.
        left: calls that still come.
    """

    def __init__(self, shard: "OpenShard", rows: range, steps: list[str]) -> None:
        self.shard = shard
        self.rows = rows
        self.steps = steps
        self.loaded: Any = None
        self.keys: tuple[str, ...] = ()
        self.node = ""
        self.outcomes: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.left = 0

    @property
    def place(self) -> tuple[int, int]:
        """Shard, and row of the first sample."""
        return self.shard.index, self.rows.start

    def unit(self, kind: Any, step: str = "", modality: str = "") -> Unit:
        """A unit of work on it."""
        return Unit(kind, self.shard.index, self.rows.start, step, modality)


class OpenShard:
    """A shard that is being worked on.

    Attributes:
        encoded: blocks by modality and row of their first sample; of those not yet committed.
        counted: (block, step) whose samples were reported.
        inquests: the searches for samples that kill workers.
        attempts: how often a unit failed.
    """

    def __init__(self, index: int, num_blocks: int, modalities: Iterable[str]) -> None:
        self.index = index
        self.num_blocks = num_blocks
        self.encoded: dict[str, dict[int, Encoded]] = {each: {} for each in modalities}
        self.counted: set[tuple[int, str]] = set()
        self.inquests: dict[Unit, Inquest] = {}
        self.attempts: Counter[Unit] = Counter()

    def is_complete(self, modality: str) -> bool:
        """Whether all blocks of a modality are there, ready to be committed."""
        return len(self.encoded.get(modality, ())) == self.num_blocks

    def objects(self, modality: str) -> list[Any]:
        """Its blocks in order."""
        found = self.encoded[modality]
        return [found[start].object for start in sorted(found)]


class Board:
    """Everything that is open, and what is still to come."""

    def __init__(self, plan: Plan, block_samples: int = BLOCK_SAMPLES) -> None:
        self._plan = plan
        self._block_samples = block_samples
        self._blocks: dict[tuple[int, int], OpenBlock] = {}
        self._shards: dict[int, OpenShard] = {}
        self._given_up: set[int] = set()
        self._coming = self._all_rows()
        self._next = next(self._coming, None)
        self._upstream = {name: plan.upstream(name) for name in plan.steps}
        self._remaining: Counter[str] = Counter()
        for shard, names in plan.work.items():
            for name in names:
                self._remaining[name] += self._num_blocks(shard)

    @property
    def num_open(self) -> int:
        """Blocks in memory."""
        return len(self._blocks)

    @property
    def num_shards(self) -> int:
        """Shards that are not yet committed in all their versions."""
        return len(self._shards)

    @property
    def is_finished(self) -> bool:
        """Whether all is committed or given up."""
        return not self._shards and self._next is None

    def remaining(self, step: str) -> int:
        """Blocks that a step has still to run on."""
        return self._remaining[step]

    def upstream(self, step: str) -> list[str]:
        """The steps of this wave whose outcomes a step reads."""
        return self._upstream[step]

    def is_current(self, block: OpenBlock) -> bool:
        """Whether a block is still wanted; it may have been given up or opened anew."""
        return self._blocks.get(block.place) is block

    def is_open(self, shard: OpenShard) -> bool:
        """Whether a shard is still wanted."""
        return self._shards.get(shard.index) is shard

    # -- opening -------------------------------------------------------------------------------

    def admit(self) -> OpenBlock | None:
        """The next block of the corpus, opened; `None` after the last."""
        while self._next is not None:
            shard, rows = self._next
            self._next = next(self._coming, None)
            if shard not in self._given_up:
                return self._open(self._shard(shard), rows)
        return None

    def reopen(self, block: OpenBlock) -> OpenBlock:
        """The same block from the beginning, after objects of it were lost."""
        return self._open(block.shard, block.rows)

    def reopen_encoded(self, shard: OpenShard, modality: str, nodes: set[str]) -> list[OpenBlock]:
        """Blocks whose encoded labels were made on nodes that are gone, from the beginning."""
        found = shard.encoded[modality]
        lost = [start for start, each in found.items() if each.node in nodes]
        blocks = []
        for start in lost:
            del found[start]
            stop = min(start + self._block_samples, self._plan.samples[shard.index])
            blocks.append(self._open(shard, range(start, stop)))
        return blocks

    def _open(self, shard: OpenShard, rows: range) -> OpenBlock:
        steps = self._needed(shard, rows.start)
        for unit, inquest in shard.inquests.items():
            if unit.start == rows.start:
                inquest.abandon()
        block = OpenBlock(shard, rows, steps)
        block.left = len(steps) + len(self.encodes(block))
        self._blocks[block.place] = block
        return block

    def _needed(self, shard: OpenShard, start: int) -> list[str]:
        names = self._plan.work[shard.index]
        wanted = {name for name in names if self.to_encode(shard, start, name)}
        for name in reversed(names):
            if name in wanted:
                wanted.update(self._upstream[name])
        return [name for name in names if name in wanted]

    def to_encode(self, shard: OpenShard, start: int, step: str) -> list[str]:
        """Modalities of a step that are not there yet for a block."""
        plan = self._plan.steps[step]
        if shard.index in plan.done:
            return []  # it runs only to hand something on
        found = shard.encoded
        return [each for each in plan.writers if each in found and start not in found[each]]

    def encodes(self, block: OpenBlock) -> list[tuple[str, str]]:
        """(step, modality) of all that is to be encoded of a block."""
        return [
            (step, modality)
            for step in block.steps
            for modality in self.to_encode(block.shard, block.rows.start, step)
        ]

    # -- progress ------------------------------------------------------------------------------

    def loaded(self, block: OpenBlock, samples: Any, done: Done) -> list[str]:
        """Steps that can run, now that a block is there."""
        block.loaded, block.keys, block.node = samples, done.keys, done.node
        return [name for name in block.steps if not self._upstream[name]]

    def inputs(self, block: OpenBlock, step: str) -> list[Any]:
        """What a step reads: the block, and the outcomes of the steps before it."""
        return [block.loaded, *(block.outcomes[name] for name in self._upstream[step])]

    def ran(self, block: OpenBlock, step: str, outcomes: Any) -> list[str]:
        """Steps that can run, now that one has."""
        block.outcomes[step] = outcomes
        return [
            name for name in block.steps
            if step in self._upstream[name]
            and all(each in block.outcomes for each in self._upstream[name])
        ]  # fmt: skip

    def count(self, block: OpenBlock, step: str) -> bool:
        """Whether a step's samples of a block are to be reported; they are once."""
        mark = (block.rows.start, step)
        if mark in block.shard.counted:
            return False
        block.shard.counted.add(mark)
        self._remaining[step] -= 1
        return True

    def encoded(self, block: OpenBlock, modality: str, found: Encoded) -> bool:
        """Keep one modality of a block; whether the shard can be committed."""
        block.shard.encoded[modality][block.rows.start] = found
        return block.shard.is_complete(modality)

    def close_call(self, block: OpenBlock) -> None:
        """Let go of a block when nothing will read it any more."""
        block.left -= 1
        if not block.left:
            del self._blocks[block.place]

    def committed(self, shard: OpenShard, modality: str) -> None:
        """Let go of what is on the disk."""
        del shard.encoded[modality]
        if not shard.encoded:
            del self._shards[shard.index]

    def give_up(self, shard: OpenShard) -> None:
        """Forget a shard that cannot be finished."""
        self._given_up.add(shard.index)
        del self._shards[shard.index]
        for place in [each for each in self._blocks if each[0] == shard.index]:
            del self._blocks[place]
        counted = Counter(step for _, step in shard.counted)
        for name in self._plan.work[shard.index]:
            self._remaining[name] -= shard.num_blocks - counted[name]

    def _shard(self, index: int) -> OpenShard:
        if index not in self._shards:
            plans = [self._plan.steps[name] for name in self._plan.work[index]]
            modalities = [m for each in plans if index not in each.done for m in each.writers]
            self._shards[index] = OpenShard(index, self._num_blocks(index), modalities)
        return self._shards[index]

    def _num_blocks(self, shard: int) -> int:
        return max(1, -(-self._plan.samples[shard] // self._block_samples))

    def _all_rows(self) -> Iterator[tuple[int, range]]:
        size = self._block_samples
        for shard in self._plan.work:
            samples = self._plan.samples[shard]
            for start in range(0, max(samples, 1), size):  # one without samples is committed, too
                yield shard, range(start, min(start + size, samples))
