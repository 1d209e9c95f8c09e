"""What the engine decides when things break, with Ray played in this process: no worker really
dies, so that every way of dying can be tried in no time. test_faults.py has the real ones."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions as ray_errors

from fourmill.manifests.dataset import VersionWriter
from fourmill.manifests.errors import FourmillError
from fourmill.pipeline import calls, crew, engine, faults, pace, pools
from fourmill.pipeline.engine import Engine
from fourmill.pipeline.plan import Plan, StepPlan
from fourmill.pipeline.remote import Arrivals
from fourmill.pipeline.report import Report
from fourmill.pipeline.steps import Step
from fourmill.pipeline.units import Done

SHARDS, SAMPLES = 5, 70


class Named(Step):
    """A step by its name; what it does is up to the world."""

    def __init__(self, name: str, reads: tuple[str, ...], *writes: str, transient=()) -> None:
        self.name, self.reads, self.writes, self.transient = name, reads, writes, transient

    def producer(self):
        raise NotImplementedError

    def load(self, device):
        raise NotImplementedError

    def run(self, batch):
        raise NotImplementedError


class Writer(VersionWriter):
    """A writer by the modality that it would write."""

    def __init__(self, modality: str) -> None:
        self.folder = modality


class Lost(ray_errors.ObjectLostError):
    """What Ray says of an object that was on a node that is gone."""

    def __init__(self) -> None:
        Exception.__init__(self, "gone with a node")


class Ref:
    """A result, or an error, that is told a little later."""

    def __init__(self, world: "World", value: Any = None, error: Exception | None = None) -> None:
        self.world, self.value, self.error = world, value, error

    def future(self) -> "Future[Done]":
        future: Future[Done] = Future()
        self.world.arriving.append((future, self))
        return future


class World:
    """Workers and tasks, and what goes wrong with them.

    Attributes:
        killers: keys of samples that kill at a step, or at `load`.
        accidents: errors that the next calls of a kind meet, first come first served.
        unwritable: a shard that no store takes.
        run_seconds: that a step takes for a block; loading takes none, so blocks whose steps take
            none either are worth keeping together.
        together: (shard, first row) of blocks that stayed in one worker.
    """

    def __init__(self) -> None:
        self.arriving: list[tuple[Future[Done], Ref]] = []
        self.killers: dict[str, set[str]] = {}
        self.accidents: dict[str, list[Exception]] = {}
        self.unwritable = -1
        self.run_seconds = 0.0
        self.together: list[tuple[int, int]] = []
        self.committed: list[tuple[str, int]] = []
        self.progress: Counter[str] = Counter()

    def tell(self) -> None:
        """Let everything arrive that was begun until now."""
        arriving, self.arriving = self.arriving, []
        for future, ref in arriving:
            if ref.error is not None:
                future.set_exception(ref.error)
            else:
                future.set_result(ref.value)

    def answer(self, kind: str, made: Any, done: Done) -> tuple[Ref, Ref]:
        accidents = self.accidents.get(kind, [])
        return Ref(self, made), Ref(self, done, accidents.pop(0) if accidents else None)

    def kills(self, step: str, keys: Sequence[str]) -> bool:
        return bool(self.killers.get(step, set()) & set(keys))

    # -- tasks -----------------------------------------------------------------------------------

    def load(self, url, snapshot, modalities, shard, rows, side, excluded):
        keys = tuple(f"{shard}-{row}" for row in rows)
        if self.kills("load", [key for at, key in enumerate(keys) if at not in excluded]):
            return Ref(self), Ref(self, error=ray_errors.WorkerCrashedError())
        return self.answer("load", keys, Done("node", keys=keys))

    def load_autopsy(self, url, snapshot, modalities, shard, rows, side):
        dies = self.kills("load", [f"{shard}-{row}" for row in rows])
        return Ref(self), Ref(self, Done("node", reason="SIGBUS" if dies else ""))

    def encode(self, step, modality, keys, rows, seconds, excluded, outcomes):
        return self.answer("encode", keys, Done("node"))

    def commit(self, writer, shard, *blocks):
        if shard == self.unwritable:
            return Ref(self), Ref(self, error=OSError("the disk is full"))
        made, done = self.answer("commit", None, Done("node"))
        if done.error is None:
            assert sum((block.value for block in blocks), ()) == _keys(shard), "all, in order"
            self.committed.append((writer.folder, shard))
        return made, done


class Actor:
    """A worker."""

    def __init__(self, world: World) -> None:
        self.world, self.is_dead = world, False

    def __getattr__(self, name: str) -> Any:
        act = getattr(self, f"do_{name}")

        def remote(*arguments: Any) -> Any:
            answer = None if self.is_dead else act(*arguments)
            if answer is None:
                count = sum(len(p.encodes) for p in arguments[0]) if name == "blocks" else 1
                died = Ref(self.world, error=ray_errors.ActorDiedError())
                answer = (*[Ref(self.world)] * count, died)
            done = answer[-1]
            self.is_dead |= isinstance(done.error, ray_errors.ActorDiedError)
            return done if name in ("start", "prepare") else answer

        return _method(remote)

    def do_start(self):
        return self.world.answer("start", None, Done("node"))

    def do_prepare(self, name):
        return self.world.answer("prepare", None, Done("node"))

    def do_run(self, errand, block, *upstream):
        rows = range(len(block.value)) if errand.rows is None else errand.rows
        keys = [block.value[row] for row in rows if row not in errand.excluded]
        if self.world.kills(errand.step, keys):
            return None
        seconds = self.world.run_seconds
        done = Done("node", samples=len(rows), failed=len(errand.excluded), seconds=seconds)
        return self.world.answer(errand.step, None, done)

    def do_blocks(self, passages):
        made, dones = [], []
        for each in passages:
            keys = [f"{each.shard}-{row}" for row in each.rows]
            if any(self.world.kills(name, keys) for name in ("load", *each.steps)):
                return None
            told = {name: Done("node", samples=len(keys)) for name in each.steps}
            dones.append(Done("node", steps=told))
            made += [Ref(self.world, tuple(keys)) for _ in each.encodes]
        _, done = self.world.answer("block", None, dones)
        if done.error is None:
            self.world.together += [(each.shard, each.rows[0]) for each in passages]
        return *made, done

    def do_autopsy(self, errand, block, *upstream):
        dies = self.world.kills(errand.step, [block.value[row] for row in errand.rows])
        return self.world.answer("autopsy", None, Done("node", reason="SIGSEGV" if dies else ""))


def _method(function: Callable[..., Any]) -> Any:
    method = SimpleNamespace(remote=function)
    method.options = lambda **_: method
    return method


def _keys(shard: int) -> tuple[str, ...]:
    return tuple(f"{shard}-{row}" for row in range(SAMPLES))


@pytest.fixture(params=[False, True], ids=["apart", "together"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which nothing goes wrong yet."""
    made = World()
    made.run_seconds = float(not request.param)

    class Told(Arrivals):
        def take(self, timeout):
            made.tell()
            return super().take(0.001)

    actor_class = SimpleNamespace(
        options=lambda **_: SimpleNamespace(remote=lambda *_: Actor(made))
    )
    ray = SimpleNamespace(
        put=lambda value: value,
        kill=lambda actor: setattr(actor, "is_dead", True),
        remote=lambda **_: lambda _: actor_class,
        nodes=lambda: [{"Alive": True, "NodeID": "node", "Resources": {"CPU": 2.0}}],
    )
    tasks = SimpleNamespace(
        **{n: _method(getattr(made, n)) for n in ("load", "load_autopsy", "encode", "commit")}
    )
    monkeypatch.setattr(engine, "Arrivals", Told)
    monkeypatch.setattr(calls, "Tasks", lambda: tasks)
    monkeypatch.setattr(calls, "ray", ray)
    monkeypatch.setattr(crew, "ray", ray)
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(faults, "BACKOFF_SECONDS", 0.001)
    return made


def _engine(world: World, shards: int = SHARDS) -> Engine:
    """A wave of three steps, one of which hands something on; shard 1 has one of them already."""
    steps = {
        "a": Named("a", ("rgb",), "features", "y", transient=("features",)),
        "b": Named("b", ("features", "rgb"), "z"),
        "c": Named("c", ("rgb",), "w"),
    }
    plans = {
        name: StepPlan(step, {m: Writer(m) for m in step.stored}, frozenset())
        for name, step in steps.items()
    }
    plans["b"] = StepPlan(steps["b"], plans["b"].writers, frozenset({1}))
    work = {shard: ["a", "b", "c"] for shard in range(shards)} | {1: ["a", "c"]}
    plan = Plan("url", "snapshot", plans, work, dict.fromkeys(work, SAMPLES), {"features": "a"})
    return Engine(plan, lambda step, done, failed: world.progress.update({step: done}))


def _run(world: World) -> Report:
    made = _engine(world)
    report = made.run()
    wanted = [(name, shard) for name in "wyz" for shard in range(SHARDS)]
    wanted.remove(("z", 1))
    assert sorted(world.committed) == wanted
    assert report.samples == world.progress == {"a": 350, "b": 280, "c": 350}, "counted once"
    assert made._board.num_open == made._board.num_shards == 0, "all is let go"
    assert [made._board.remaining(step) for step in "abc"] == [0, 0, 0]
    return report


def test_every_step_is_run_and_committed_once(world):
    assert _run(world).deaths == 0
    count = len(set(world.together))
    assert count == len(world.together)
    assert 5 <= count < 15 if not world.run_seconds else not count, "the first are a trial"


def test_the_driver_does_as_much_for_late_blocks_as_for_early_ones(world, monkeypatch):
    """Counted in operations of the interpreter, loops within a line among them."""
    monkeypatch.setattr(pace, "MOST_BLOCKS", 1)  # or they would come in lumps
    operations, seen = 0, []

    def trace(frame, event, _):
        nonlocal operations
        if event == "call":
            frame.f_trace_opcodes = "fourmill/pipeline" in frame.f_code.co_filename
            return trace if frame.f_trace_opcodes else None
        operations += event == "opcode"
        return trace

    made = _engine(world, shards=20)
    made._on_progress = lambda *_: seen.append(operations)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        made.run()
    finally:
        sys.settrace(before)
    part = len(seen) // 5
    early, late = (seen[at + part] - seen[at] for at in (2 * part, len(seen) - 1 - part))
    assert late < 1.1 * early


def test_a_death_in_a_call_for_many_blocks_looks_at_each_of_them_apart(world):
    world.killers = {"c": {"3-45"}}
    report = _run(world)
    assert report.failed["c"] == 1
    assert report.deaths < 12, "not one death for each block of a call"


def test_what_kills_at_a_step_fails_there_alone(world):
    world.killers = {"a": {"2-40"}, "c": {"0-0", "0-69"}}
    assert _run(world).failed == {"a": 1, "b": 0, "c": 2}


def test_what_kills_while_it_is_read_is_excluded_from_reading(world):
    world.killers = {"load": {"3-5", "4-69"}}
    _run(world)


@pytest.mark.parametrize("kind", ["a", "b", "c", "block", "start", "prepare", "autopsy"])
def test_workers_that_are_killed_from_outside_are_replaced(world, kind):
    world.accidents = {kind: [ray_errors.ActorDiedError(), ray_errors.ActorDiedError()]}
    world.killers = {"c": {"1-1"}}
    assert _run(world).failed == {"a": 0, "b": 0, "c": 1}


@pytest.mark.parametrize("kind", ["load", "encode", "block", "commit"])
@pytest.mark.parametrize("error", [OSError("no route"), ray_errors.WorkerCrashedError()])
def test_tasks_that_fail_now_and_then_are_tried_again(world, kind, error):
    world.accidents = {kind: [error, error]}
    assert _run(world).given_up == {}


@pytest.mark.parametrize("kind", ["a", "b", "c", "encode"])
def test_what_was_lost_with_a_node_is_made_again(world, kind):
    world.accidents = {kind: [Lost() for _ in range(5)]}
    _run(world)


def test_a_shard_that_cannot_be_committed_is_given_up_and_the_others_go_on(world):
    world.unwritable = 2
    made = _engine(world)
    with pytest.raises(FourmillError, match=r"(?s)1 of 5 shards could not .*disk is full"):
        made.run()
    assert {shard for _, shard in world.committed} == {0, 1, 3, 4}
    assert made._board.num_open == made._board.num_shards == 0


def test_shards_that_fail_one_after_another_stop_the_run(world):
    world.accidents = {"load": [OSError("no such bucket")] * 1000}
    with pytest.raises(FourmillError, match=r"last 5 shards failed.*no such bucket"):
        _engine(world).run()


def test_a_step_that_kills_whoever_loads_it_stops_the_run(world):
    world.accidents = {"prepare": [ray_errors.ActorDiedError()] * 1000}
    with pytest.raises(FourmillError, match="cannot be loaded"):
        _engine(world).run()


def test_a_node_with_many_workers_that_goes_away_while_they_load_counts_once(world, monkeypatch):
    monkeypatch.setattr(faults, "BACKOFF_SECONDS", 0.2)
    monkeypatch.setattr(faults, "MAX_ATTEMPTS", 2)
    world.accidents = {"prepare": [ray_errors.ActorDiedError(), ray_errors.ActorDiedError()]}
    assert _run(world).deaths == 2
