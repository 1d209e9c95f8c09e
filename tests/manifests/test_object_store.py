"""The same dataset in S3: written, published, read, verified; by two at once, too."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.manifests.conftest import KEYS, tokens_of

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, MissingPackageError, SnapshotError
from fourmill.manifests.storage import Storage

pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
server = pytest.importorskip("moto.server", reason="moto plays S3 here")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:moto", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    moto = server.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    moto.start()
    yield f"http://127.0.0.1:{port}"
    moto.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request) -> str:
    import s3fs

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket{abs(hash(request.node.name))}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


def test_a_dataset_lives_in_a_bucket_as_on_a_disk(bucket, make_dataset, tmp_path):
    there, here = make_dataset(f"{bucket}/cats"), make_dataset(str(tmp_path / "cats"))
    assert there.head.id == here.head.id  # the same content to the byte
    again = Dataset.open(f"{bucket}/cats")
    assert again.shard("caption", 1).keys == KEYS[1]
    np.testing.assert_array_equal(again.tokens("tok_rgb@224")[2], tokens_of(2))
    assert [each["caption"] for each in again.samples(["caption"])][:2] == ["a cat 0", "a cat 1"]
    assert again.verify(deep=True) == []
    assert [each.snapshot.message for each in again.log()] == ["tokenize", "ingest"]


def test_its_life_goes_on_in_the_bucket(bucket, make_dataset, write_captions):
    dataset = make_dataset(f"{bucket}/cats")
    first = dataset.log()[-1].id
    dataset.publish([write_captions(dataset, producer="blip", text="one cat")], "recaption")
    assert [each.is_stale for each in dataset.status().modalities] == [False, True]
    dataset.rollback(first)
    assert list(Dataset.open(f"{bucket}/cats").modalities) == ["caption"]
    assert {each.path.split("/")[0] for each in dataset.gc(keep=1)} >= {"snapshots", "tok_rgb@224"}
    assert Dataset.open(f"{bucket}/cats").verify(deep=True) == []


def test_damage_in_the_bucket_is_found(bucket, make_dataset):
    dataset = make_dataset(f"{bucket}/cats")
    storage = Storage(f"{bucket}/cats")
    storage.remove("caption/shard-000000.tar")
    storage.write("tok_rgb@224/shard-000002.tar", b"no tar")
    reasons = {each.file.rpartition("/")[2]: each.reason for each in dataset.verify()}
    assert reasons["shard-000000.tar"] == "the file is missing"
    assert reasons["shard-000002.tar"].startswith("6 bytes, its record says")


def test_of_two_who_publish_the_same_in_the_bucket_one_is_told(
    bucket, make_dataset, write_captions
):
    make_dataset(f"{bucket}/cats")
    one, other = (Dataset.open(f"{bucket}/cats") for _ in range(2))
    one.publish([write_captions(one, producer="blip", text="one cat")], "blip")
    with pytest.raises(SnapshotError, match="somebody else published caption"):
        other.publish([write_captions(other, producer="git", text="my cat")], "git")


def test_only_one_of_two_swaps_succeeds(bucket):
    storage = Storage(bucket)
    assert storage.swap("HEAD", None, b"one")
    assert not storage.swap("HEAD", None, b"other")
    assert not storage.swap("HEAD", b"other", b"third")
    assert storage.swap("HEAD", b"one", b"other")
    assert storage.read("HEAD") == b"other"


def test_of_many_swaps_at_the_same_moment_exactly_one_succeeds(bucket):
    storage = Storage(bucket)
    storage.swap("HEAD", None, b"start")
    with ThreadPoolExecutor(6) as pool:
        swapped = list(pool.map(lambda n: storage.swap("HEAD", b"start", b"%d" % n), range(6)))
    assert swapped.count(True) == 1
    assert storage.read("HEAD") == b"%d" % swapped.index(True)


def test_a_kind_of_store_that_is_unknown_or_not_installed_says_so():
    with pytest.raises(ConfigError, match="nosuch"):
        Storage("nosuch://bucket/x")
    with pytest.raises(MissingPackageError, match="dropbox"):
        Storage("dropbox://x/y")
