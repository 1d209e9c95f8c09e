"""The bytes of shards: those of `tarfile`, from content alone, and arrays when read back."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ShardError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.packing import pack_array, pack_members
from fourmill.manifests.snapshots import Producer

KEY = st.text("0123456789ABCXYZabcxyz_-", min_size=1, max_size=90)
UNIQUE_KEYS = st.lists(KEY, max_size=12, unique=True)
DTYPES = st.sampled_from(["int16", "int32", "int64", "float16", ">i4", "uint8"])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7)


def written_by_tarfile(names: list[str], payloads: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, payload in zip(names, payloads, strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
    return buffer.getvalue()


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@settings(deadline=None)
@given(UNIQUE_KEYS, DTYPES, SHAPES, st.randoms(use_true_random=False))
def test_arrays_are_packed_to_the_very_bytes_of_tarfile_and_numpy(keys, dtype, shape, random):
    values = np.frombuffer(random.randbytes(8 * int(np.prod(shape)) * len(keys)), np.uint64)
    array = (values % 100).reshape(len(keys), *shape).astype(dtype)
    members = [saved(np.asarray(row).astype(array.dtype.newbyteorder("<"))) for row in array]
    expected = written_by_tarfile([f"{key}.npy" for key in keys], members)
    assert bytes(pack_array(keys, "npy", array)) == expected


@settings(deadline=None)
@given(UNIQUE_KEYS, st.data())
def test_members_of_any_size_are_packed_to_the_very_bytes_of_tarfile(keys, data):
    payloads = [data.draw(st.binary(max_size=2000)) for _ in keys]
    extensions = [data.draw(st.sampled_from(["jpg", "png", "json.gz"])) for _ in keys]
    names = [f"{key}.{each}" for key, each in zip(keys, extensions, strict=True)]
    expected = written_by_tarfile(names, payloads)
    assert pack_members(keys, extensions or ["jpg"], payloads) == expected


def test_a_column_ordered_array_gives_the_same_bytes():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert pack_array(["a", "b"], "npy", np.asfortranarray(array)) == pack_array(
        ["a", "b"], "npy", array
    )


def test_parts_are_packed_as_the_whole_is() -> None:
    array = np.arange(5 * 6).reshape(5, 2, 3)
    keys = list("abcde")
    parts = [array[:2], array[2:2], array[2:]]
    assert pack_array(keys, "npy", parts) == pack_array(keys, "npy", array)
    for others in ([array[:2], array[2:].astype(np.int16)], [array[:2], array[2:, :1]], []):
        with pytest.raises(ShardError, match=r"types and shapes, expected one|5 keys for 0"):
            pack_array(keys, "npy", others)


@settings(deadline=None, max_examples=30)
@given(UNIQUE_KEYS, DTYPES, SHAPES)
def test_any_array_comes_back_with_its_keys(tmp_path_factory, keys, dtype, shape):
    dataset = Dataset.open(str(tmp_path_factory.mktemp("array")), create=True)
    array = np.arange(len(keys) * np.prod(shape)).reshape(len(keys), *shape).astype(dtype)
    definition = Modality("any", Kind.TOKENS, "any", "npy")
    writer = dataset.writer(definition, Producer(name="test", version="1"), {}, 1)
    writer.commit(0, keys, array=array)
    dataset.publish([writer.finish()], "test")
    shard = dataset.shard("any", 0)
    assert shard.keys == keys
    assert shard.array().shape == array.shape
    np.testing.assert_array_equal(shard.array(), array)
    for row in range(len(keys)):
        np.testing.assert_array_equal(np.load(io.BytesIO(shard.payload(row))), array[row])
    assert dataset.verify() == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a", "b", "a"], "key 'a' is twice in one shard"),
        (["a", "b.c", "d"], "key 'b.c' is not made of"),
        (["a", "", "d"], "key '' is not made of"),
        (["a", "b\n", "d"], r"key 'b\\n' is not made of"),
        (["a", "Zürich", "d"], "key 'Zürich' is not made of"),
        (["a", "b", "c" * 97], "longer than 100 bytes"),
        (["a", "b"], "2 keys for 3 records"),
    ],
)
def test_keys_that_would_break_a_reader_are_refused_by_name(keys, message):
    with pytest.raises(ShardError, match=message):
        pack_members(keys, ["json"], [b"{}"] * 3)
    with pytest.raises(ShardError, match=message):
        pack_array(keys, "npyx", np.zeros((3, 2)))
