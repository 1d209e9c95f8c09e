"""Workers come and go with the work, within what the machines have."""

import pytest

from fourmill.labelers.base import Resources
from fourmill.pipeline.pools import (
    IDLE_SECONDS,
    LOOK_SECONDS,
    TURN_SECONDS,
    Pools,
    Slot,
    make_pools,
)
from fourmill.pipeline.steps import Step

GIB = 1 << 30
LAPTOP = {"CPU": 2.0, "memory": 12.0 * GIB}
GPU_BOX = {"CPU": 16.0, "GPU": 1.0, "memory": 64.0 * GIB}


class Plain(Step):
    """A step, as far as pools look at it."""

    reads = writes = ()

    def __init__(self, name, runtime_env=None, **resources):
        self.name, self.runtime_env = name, runtime_env or {}
        self.resources = Resources(**resources)

    def producer(self):
        raise NotImplementedError

    def load(self, device):
        raise NotImplementedError

    def run(self, batch):
        raise NotImplementedError


class Cluster:
    """Machines on which workers start at once, and a clock that is set by hand."""

    def __init__(self, steps, nodes, remaining=100):
        self.now = 0.0
        self.nodes = nodes
        self.left = {each.name: remaining for each in steps}
        made = make_pools(steps, nodes, self.left.__getitem__)
        self.pools = Pools(made, self.start, self.stop, lambda: self.nodes, lambda: self.now)
        self.stopped = []

    def start(self, pool):
        return Slot(pool, actor=None, is_ready=True, idle_since=self.now)

    def stop(self, slot):
        self.stopped.append(slot)

    def look(self, seconds=LOOK_SECONDS):
        self.now += seconds
        self.pools.rebalance()
        return {each.title: len(each.slots) for each in self.pools.all}

    def finish(self, slot):
        slot.in_flight.pop()
        self.pools.release(slot)


def test_steps_without_a_gpu_share_one_pool_with_a_worker_a_cpu():
    cluster = Cluster([Plain("edges"), Plain("palette")], [LAPTOP])
    assert cluster.look() == {"edges, palette": 2}


def test_a_gpu_or_a_runtime_environment_has_workers_of_its_own():
    steps = [Plain("edges"), Plain("depth", gpus=0.5), Plain("old", {"env_vars": {"A": "1"}})]
    assert Cluster(steps, [GPU_BOX]).look() == {"depth": 2, "old": 7, "edges": 7}


def test_a_step_that_asks_for_a_gpu_runs_where_there_is_none():
    (pool,) = make_pools([Plain("depth", gpus=1.0)], [LAPTOP], lambda _: 1)
    assert pool.demand.gpus == 0


def test_what_takes_a_gpu_if_there_is_one_shares_the_cpus_elsewhere():
    steps = [Plain("edges"), Plain("tok_rgb")]
    steps[1].gpu_if_any = 0.25
    assert Cluster(steps, [GPU_BOX]).look() == {"tok_rgb": 4, "edges": 12}
    assert Cluster(steps, [LAPTOP]).look() == {"edges, tok_rgb": 2}


def test_memory_bounds_the_number_of_workers():
    steps = [Plain("large", memory_gib=8.0)]
    assert Cluster(steps, [LAPTOP]).look() == {"large": 1}
    # more than there is: one all the same, for what is declared is a guess
    assert Cluster([Plain("huge", memory_gib=80.0)], [LAPTOP]).look() == {"huge": 1}


def test_a_shared_worker_needs_the_memory_of_all_its_steps_but_one_interpreter():
    (pool,) = make_pools(
        [Plain("a", memory_gib=1.0), Plain("b", memory_gib=0.8)], [LAPTOP], lambda _: 1
    )
    assert pool.demand.memory_bytes == pytest.approx(1.3 * GIB, abs=1)


def test_workers_do_not_outnumber_the_blocks():
    assert Cluster([Plain("depth")], [GPU_BOX], remaining=3).look() == {"depth": 3}


def test_a_pool_shrinks_when_it_is_idle_and_grows_when_work_waits():
    cluster = Cluster([Plain("depth")], [GPU_BOX])
    cluster.look()
    (pool,) = cluster.pools.all
    assert len(pool.slots) == 16
    for slot in pool.slots:
        cluster.pools.release(slot)
    assert cluster.look(IDLE_SECONDS + 1) == {"depth": 1}
    pool.queue.extend(range(10))
    assert cluster.look() == {"depth": 5}


def test_a_pool_without_further_work_is_let_go_at_once():
    cluster = Cluster([Plain("depth")], [GPU_BOX])
    cluster.look()
    cluster.left["depth"] = 0
    assert cluster.look() == {"depth": 0}
    assert len(cluster.stopped) == 16


def test_two_networks_take_turns_on_one_gpu():
    cluster = Cluster([Plain("depth", gpus=1.0), Plain("normal", gpus=1.0)], [GPU_BOX])
    assert cluster.look() == {"depth": 1, "normal": 0}
    depth, normal = cluster.pools.all
    normal.queue.append("block")
    depth.slots[0].in_flight.append("block")
    assert cluster.look(60) == {"depth": 1, "normal": 0}, "it works"
    assert cluster.pools.open_blocks >= 16, "a turn is worth loading a network"
    cluster.finish(depth.slots[0])
    assert cluster.look() == {"depth": 1, "normal": 0}, "it may get work in the next moment"
    assert cluster.look(TURN_SECONDS) == {"depth": 0, "normal": 1}


def test_a_busy_pool_of_many_gives_one_worker_up_after_its_last_call():
    cluster = Cluster([Plain("edges"), Plain("old", {"env_vars": {"A": "1"}})], [LAPTOP])
    cluster.left["old"] = 0
    assert cluster.look() == {"old": 0, "edges": 2}
    old, edges = cluster.pools.all
    for slot in edges.slots:
        slot.in_flight.append("block")
    edges.queue.extend(range(4))
    cluster.left["old"] = 5
    old.queue.append("block")
    cluster.look()
    (leaving,) = [each for each in edges.slots if each.is_retiring]
    assert not leaving.is_free
    cluster.finish(leaving)
    assert cluster.look() == {"old": 1, "edges": 1}


def test_a_dead_worker_is_replaced_and_a_new_node_is_used():
    cluster = Cluster([Plain("depth")], [LAPTOP])
    cluster.look()
    (pool,) = cluster.pools.all
    cluster.pools.remove(pool.slots[0])
    assert cluster.look() == {"depth": 2}
    cluster.nodes = [LAPTOP, LAPTOP]
    pool.queue.extend(range(20))
    assert cluster.look(20) == {"depth": 4}


def test_the_next_block_goes_to_the_worker_beside_it():
    cluster = Cluster([Plain("depth")], [LAPTOP])
    cluster.look()
    (pool,) = cluster.pools.all
    pool.slots[0].node, pool.slots[1].node = "here", "there"
    assert pool.free_slot("there") is pool.slots[1]
    pool.slots[1].in_flight.append("block")
    assert pool.free_slot("there") is pool.slots[0], "waiting would be worse than moving it"


def test_workers_that_cannot_be_started_are_tried_again_after_a_while():
    cluster = Cluster([Plain("depth")], [LAPTOP])
    (pool,) = cluster.pools.all
    cluster.pools.pause(pool, 4.0)
    assert cluster.look(1) == {"depth": 0}
    assert cluster.look(4) == {"depth": 2}
