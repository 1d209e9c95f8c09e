"""Writing versions: by many, killed at any moment, made again, and always the same bytes."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.manifests.conftest import KEYS, tokens_of

from fourmill.manifests import writing
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import AlignmentError, ConfigError, DatasetError, ShardError
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer

WORKER = """
import sys
import numpy as np
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer

dataset = Dataset.open(sys.argv[1], create=True)
writer = dataset.writer(modality("tok_rgb@224"), Producer(name="t", version="1"), {}, 60)
left = sorted(set(range(60)) - writer.done([str(n) for n in range(60)]))
for shard in left[: int(sys.argv[2])]:
    keys = [f"k{shard}-{row}" for row in range(32)]
    tokens = np.random.default_rng(shard).integers(0, 16384, (32, 4, 196)).astype(np.int16)
    writer.commit(shard, keys, array=tokens, inputs=str(shard))
    print(shard, flush=True)
sys.stdin.read()
dataset.publish([writer.finish()], "tokens")
"""


def tree(root: Path) -> dict[str, bytes]:
    """All files of a dataset but its locks."""
    files = (each for each in root.rglob("*") if each.is_file() and each.name[0] != ".")
    return {str(each.relative_to(root)): each.read_bytes() for each in files}


def run_worker(root: Path, most: int = 60) -> subprocess.Popen[str]:
    """A process that writes `most` shards at most and publishes when its input is closed."""
    command = [sys.executable, "-c", WORKER, str(root), str(most)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def test_a_writer_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    with run_worker(undisturbed) as worker:
        worker.communicate()
    for after in (1, 5, 20):
        with run_worker(disturbed, most=after + 8) as worker:
            for _ in range(after):
                assert worker.stdout is not None
                worker.stdout.readline()
            time.sleep(0.003 * after)
            os.kill(worker.pid, signal.SIGKILL)
        assert worker.returncode == -signal.SIGKILL
    with pytest.raises(DatasetError, match="holds no dataset"):
        Dataset.open(str(disturbed))
    assert 26 <= len(list(disturbed.glob("*/*.tar"))) < 60
    with run_worker(disturbed) as worker:
        made_at_last = worker.communicate()[0].split()
    assert len(made_at_last) <= 60 - 26  # what was committed stayed
    Dataset.open(str(disturbed)).gc(unfinished=True)
    assert tree(disturbed) == tree(undisturbed)
    assert Dataset.open(str(disturbed)).verify(deep=True) == []


def test_bytes_do_not_depend_on_the_order_of_shards_or_on_who_writes_them(tmp_path):
    for name, order in (("one", [0, 1, 2]), ("other", [2, 0, 1])):
        dataset = Dataset.open(str(tmp_path / name), create=True)
        producer = Producer(name="t", version="1")
        writer = dataset.writer(modality("tok_rgb@224"), producer, {}, 3)
        for shard in order:
            writer.commit(shard, KEYS[shard], array=tokens_of(shard))
        dataset.publish([writer.finish()], "tokens")
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_two_writers_of_the_same_shards_end_with_one_complete_version(tmp_path):
    dataset = Dataset.open(str(tmp_path), create=True)
    errors = []

    def write() -> None:
        try:
            mine = Dataset.open(str(tmp_path), create=True)
            writer = mine.writer(modality("tok_rgb@224"), Producer(name="t", version="1"), {}, 3)
            for _ in range(10):
                for shard in range(3):
                    writer.commit(shard, KEYS[shard], array=tokens_of(shard))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    writer = dataset.writer(modality("tok_rgb@224"), Producer(name="t", version="1"), {}, 3)
    assert writer.done() == {0, 1, 2}
    dataset.publish([writer.finish()], "tokens")
    assert dataset.verify(deep=True) == []
    np.testing.assert_array_equal(dataset.tokens("tok_rgb@224")[1], tokens_of(1))


def test_a_version_that_another_writer_finishes_meanwhile_is_finished(tmp_path, monkeypatch):
    dataset = Dataset.open(str(tmp_path), create=True)
    producer = Producer(name="t", version="1")
    mine, other = (dataset.writer(modality("tok_rgb@224"), producer, {}, 3) for _ in range(2))
    for shard in range(3):
        mine.commit(shard, KEYS[shard], array=tokens_of(shard))
    read = writing.read_commits
    finished = []

    def read_after_the_other(*where):
        monkeypatch.setattr(writing, "read_commits", read)
        finished.append(other.finish())
        return read(*where)

    monkeypatch.setattr(writing, "read_commits", read_after_the_other)
    finished.append(mine.finish())
    assert finished[0] == finished[1]
    dataset.publish(finished[:1], "tokens")
    assert dataset.verify(deep=True) == []


def test_a_shard_is_done_only_for_the_same_producer_inputs_and_size(tmp_path):
    dataset = Dataset.open(str(tmp_path), create=True)

    def writer_of(version: str = "1"):
        producer = Producer(name="t", version=version)
        return dataset.writer(modality("tok_rgb@224"), producer, {}, 3, folder="tokens")

    writer = writer_of()
    for shard in range(3):
        writer.commit(shard, KEYS[shard], array=tokens_of(shard), inputs=f"page {shard}")
    inputs = ["page 0", "page 1", "page 2"]
    assert writer.done(inputs) == {0, 1, 2}
    assert writer.done(["page 0", "page X", "page 2"]) == {0, 2}
    assert writer_of(version="2").done(inputs) == set()
    with (tmp_path / "tokens" / "shard-000002.tar").open("ab") as stream:
        stream.write(b"\0")
    assert writer.done(inputs) == {0, 1}
    with pytest.raises(DatasetError, match="1 of 3 shards are missing, the first is 2"):
        writer.finish()


def test_a_complete_version_can_be_mended_but_not_changed(dataset, tmp_path):
    writer = dataset.writer(
        modality("tok_rgb@224"),
        Producer(name="tokenizer", version="1"),
        {"caption": dataset.modalities["caption"]},
        3,
    )
    assert writer.folder == "tok_rgb@224"
    path = tmp_path / "dataset" / "tok_rgb@224" / "shard-000001.tar"
    good = path.read_bytes()
    path.unlink()
    assert dataset.missing_shards("tok_rgb@224") == [1]
    assert writer.done() == {0, 2}
    writer.commit(1, KEYS[1], array=tokens_of(99))
    with pytest.raises(DatasetError, match="made again, it came out different"):
        writer.finish()
    writer.commit(1, KEYS[1], array=tokens_of(1))
    assert writer.finish() == dataset.modalities["tok_rgb@224"]
    assert path.read_bytes() == good
    assert dataset.verify(deep=True) == []


def test_another_producer_writes_beside_what_is_there(dataset, write_tokens):
    entry = write_tokens(dataset, producer="org/better model")
    assert entry.folder.startswith("tok_rgb@224.org-better-model-")
    assert dataset.modalities["tok_rgb@224"].folder == "tok_rgb@224"


def test_keys_that_differ_from_those_of_a_source_are_refused(dataset):
    sources = {"caption": dataset.modalities["caption"]}
    writer = dataset.writer(modality("tok_rgb@224"), Producer(name="t", version="9"), sources, 3)
    with pytest.raises(
        AlignmentError, match=r"shard-000000.tar: its keys are not those of caption"
    ):
        writer.commit(0, KEYS[0][::-1], array=tokens_of(0))
    with pytest.raises(AlignmentError, match="2 shards cannot be made from the 3 of caption"):
        dataset.writer(modality("tok_rgb@224"), Producer(name="t", version="9"), sources, 2)


def test_a_version_with_other_keys_cannot_be_published(dataset):
    writer = dataset.writer(modality("metadata"), Producer(name="m", version="1"), {}, 3)
    for shard in range(3):
        writer.commit(shard, [*KEYS[shard][:3], "dog"], payloads=[b"{}"] * 4)
    before = dataset.head.id
    with pytest.raises(AlignmentError, match=r"shard-000000.tar: the keys in metadata are not"):
        dataset.publish([writer.finish()], "metadata")
    assert Dataset.open(dataset.url).head.id == before


def test_a_commit_whose_counts_disagree_is_refused(tmp_path):
    dataset = Dataset.open(str(tmp_path), create=True)
    writer = dataset.writer(modality("caption"), Producer(name="t", version="1"), {}, 1)
    with pytest.raises(ShardError, match="either payloads or an array"):
        writer.commit(0, ["a"])
    with pytest.raises(ShardError, match="1 valid marks for 2 keys"):
        writer.commit(0, ["a", "b"], payloads=[b"", b""], valid=[True])
    assert list(tmp_path.rglob("*.tar")) == []


@pytest.mark.parametrize("name", ["holiday.jpg", "photos/holiday.jpg", "snapshot/a.json"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=f"holds '{name.split('/')[0]}', which is no part"):
        Dataset.open(str(tmp_path), create=True)
    assert tree(tmp_path) == {name: b"x"}


def test_begun_work_is_no_foreign_folder(tmp_path):
    dataset = Dataset.open(str(tmp_path), create=True)
    writer = dataset.writer(modality("caption"), Producer(name="t", version="1"), {}, 2)
    writer.commit(0, ["a"], payloads=[b"x"])
    assert Dataset.open(str(tmp_path), create=True).is_empty


def test_a_writer_travels_to_another_process(tmp_path):
    dataset = Dataset.open(str(tmp_path), create=True)
    writer = dataset.writer(modality("caption"), Producer(name="t", version="1"), {}, 1)
    message = pickle.dumps(writer)
    assert len(message) < 4096
    pickle.loads(message).commit(0, ["a"], payloads=[b"x"])
    assert writer.done() == {0}
