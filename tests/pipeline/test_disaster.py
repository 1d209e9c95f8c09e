"""Workers, a node and the driver are killed; in the end everything is there, in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from fourmill.manifests.dataset import Dataset
from fourmill.pipeline.ingest import ingest, plan_ingest
from fourmill.pipeline.sources.registry import open_source

NETWORK = {"depth": "depth"}
OTHERS = {"edges": "canny_edge", "metadata": "metadata"}
ALL = NETWORK | OTHERS
PATIENCE_SECONDS = 600


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A Ray cluster of two nodes with a CPU each, on this machine, that misses a node soon."""
    config = {"health_check_period_ms": 1000, "health_check_initial_delay_ms": 1000}
    node = {"num_cpus": 1, "object_store_memory": 200 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args=node | {"_system_config": config}, connect=False
    )
    cluster.add_node(node_ip_address="127.0.0.2", **node)  # so that the driver is on the head
    yield cluster
    cluster.shutdown()


class Job:
    """`fourmill label` on a root, in a process of its own.

    Args:
        labelers: with what each of them makes.
    """

    def __init__(
        self, root: str, log: Path, labelers: Mapping[str, str], address: str | None = None
    ) -> None:
        self.root = root
        self._modalities = labelers.values()
        words = [root, "--labeler", *labelers, *(["--address", address] if address else [])]
        with log.open("a") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fourmill.pipeline.cli", "label", *words],
                stderr=stream,
                start_new_session=True,
            )

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def wait_for_commits(self, more: int) -> None:
        """Until so many more shards are on the disk."""
        goal = self.num_commits() + more
        end = time.monotonic() + PATIENCE_SECONDS
        while self.num_commits() < goal:
            assert self.process.poll() is None, "it was to be disturbed while it works"
            assert time.monotonic() < end
            time.sleep(0.02)

    def num_commits(self) -> int:
        """Shards on the disk, of all labels."""
        folders = [Path(self.root) / name for name in self._modalities]
        return sum(len(list((each / "_records").glob("shard-*"))) for each in folders)


@pytest.mark.slow
@pytest.mark.packages
@pytest.mark.ray
def test_what_was_killed_three_times_is_what_was_never_disturbed(cluster, two_nodes, tmp_path):
    undisturbed, killed = (_photos(tmp_path / name) for name in ("undisturbed", "killed"))
    log = tmp_path / "log"
    assert Job(undisturbed.url, log, ALL).wait() == 0

    head, other = two_nodes.head_node, next(iter(two_nodes.worker_nodes))
    job = Job(killed.url, log, ALL, two_nodes.address)
    job.wait_for_commits(2)
    os.kill(_labeling_worker(head), signal.SIGKILL)
    job.wait_for_commits(3)
    two_nodes.remove_node(other, allow_graceful=False)
    job.wait_for_commits(3)
    os.kill(job.process.pid, signal.SIGKILL)
    job.wait()
    assert "depth" not in Dataset.open(killed.url).modalities
    assert Job(killed.url, log, ALL, two_nodes.address).wait() == 0

    one, two = Dataset.open(undisturbed.url), Dataset.open(killed.url)
    for name in ALL.values():
        assert one.modalities[name].content_sha256 == two.modalities[name].content_sha256
        assert two.failures(name) == []
    assert two.verify(deep=True) == []


def _photos(root: Path) -> Dataset:
    """Nine shards of the built-in photographs."""
    dataset = Dataset.open(str(root), create=True)
    ingest(
        dataset,
        plan_ingest([open_source("builtin:photos?count=18")], samples_per_shard=2),
        on_progress=lambda *_: None,
    )
    return dataset


def _labeling_worker(node) -> int:
    """The process of an actor that labels."""
    (raylet,) = node.all_processes["raylet"]
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        for each in psutil.Process(raylet.process.pid).children():
            if " ".join(each.cmdline()).startswith("ray::Worker"):
                return each.pid
        time.sleep(0.05)
    raise AssertionError("nobody labels on this node")


@pytest.mark.slow
@pytest.mark.packages
@pytest.mark.ray
def test_two_runs_at_once_on_one_root_end_in_one_dataset(make_root, tmp_path):
    undisturbed, shared = make_root("undisturbed", 4), make_root("shared", 4)
    assert Job(undisturbed.url, tmp_path / "log", OTHERS).wait() == 0
    jobs = [Job(shared.url, tmp_path / "log", OTHERS) for _ in range(2)]
    codes = [each.wait() for each in jobs]
    assert 0 in codes
    one, two = Dataset.open(undisturbed.url), Dataset.open(shared.url)
    for name in OTHERS.values():
        assert one.modalities[name].content_sha256 == two.modalities[name].content_sha256
    assert two.verify(deep=True) == []
