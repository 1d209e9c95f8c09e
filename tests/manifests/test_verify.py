"""`verify` finds every kind of damage, names the file, and says what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.manifests.conftest import KEYS

from fourmill.manifests.checking import Problem
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer

SHARD = "tok_rgb@224/shard-000001.tar"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, column: str, value: object) -> None:
    """Change the first value of a column of a table."""
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    values[0] = value
    index = table.schema.get_field_index(column)
    pq.write_table(table.set_column(index, table.schema.field(index), [values]), path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str, bool]] = {
    "a shard is gone": (lambda r: (r / SHARD).unlink(), SHARD, "the file is missing", False),
    "a shard is cut": (
        lambda r: (r / SHARD).write_bytes((r / SHARD).read_bytes()[:-512]),
        SHARD, "bytes, its record says", False,
    ),
    "a shard is empty": (
        lambda r: (r / SHARD).write_bytes(b""), SHARD, "0 bytes, its record says", False,
    ),
    "a number is changed": (lambda r: flip(r / SHARD, 2000), SHARD, "its SHA-256 is not", True),
    "a name is changed": (lambda r: flip(r / SHARD, 0), SHARD, "its keys are not those", True),
    "a header is changed": (
        lambda r: flip(r / SHARD, 101), SHARD, "the tar header of sample 0", True,
    ),
    "a name is no text": (
        lambda r: (r / SHARD).write_bytes(b"\xff" + (r / SHARD).read_bytes()[1:]),
        SHARD, "names of members are not readable", True,
    ),
    "a name is a path": (
        lambda r: (r / SHARD).write_bytes(b"/" + (r / SHARD).read_bytes()[1:]),
        SHARD, "is not made of letters, digits, '_' and '-' alone", True,
    ),
    "the table is gone": (
        lambda r: (r / "caption/_shards.parquet").unlink(),
        "caption/_shards.parquet", "is missing", False,
    ),
    "the table is garbage": (
        lambda r: (r / "caption/_shards.parquet").write_bytes(b"PAR1 and nothing else PAR1"),
        "caption/_shards.parquet", "not readable", False,
    ),
    "the table is changed": (
        lambda r: rewrite(r / "caption/_shards.parquet", "sha256", "0" * 64),
        "caption/_shards.parquet", "the table was changed", False,
    ),
    "the table is another's": (
        lambda r: (r / "caption/_shards.parquet").write_bytes(
            (r / "tok_rgb@224/_shards.parquet").read_bytes()
        ),
        "caption/_shards.parquet", "the table was changed", False,
    ),
    "the failures are gone": (
        lambda r: (r / "caption/_failed.parquet").unlink(),
        "caption/_failed.parquet", "is missing", False,
    ),
    "the failures are another's": (
        lambda r: (r / "caption/_failed.parquet").write_bytes(
            (r / "tok_rgb@224/_failed.parquet").read_bytes()
        ),
        "caption/_failed.parquet", "0 failures, the manifest says 3", False,
    ),
    "an earlier manifest is changed": (
        lambda r: flip(next(p for p in (r / "snapshots").iterdir() if p.stem not in
                            (r / "HEAD").read_text()), 40),
        "snapshots/", "snapshots", False,
    ),
}  # fmt: skip


def find(problems: list[Problem], place: str, reason: str) -> list[Problem]:
    return [each for each in problems if place in each.file and reason in each.reason]


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_where_it_is_and_with_a_remedy(what, dataset, tmp_path):
    damage, place, reason, only_deep = DAMAGE[what]
    damage(tmp_path / "dataset")
    found = Dataset.open(dataset.url).verify(deep=True)
    (problem,) = find(found, place, reason)[:1]
    assert problem.remedy
    assert {place in each.file for each in found} == {True}  # nothing else is accused
    assert bool(Dataset.open(dataset.url).verify()) != only_deep


def test_a_good_dataset_has_no_problems(dataset):
    assert dataset.verify() == dataset.verify(deep=True) == []


def test_a_labeler_that_makes_bad_labels_is_found_out(dataset):
    sizes = np.zeros((4, 2, 196), np.int16)
    sizes[2, 1, 7] = -5
    writer = dataset.writer(modality("tok_depth@224"), Producer(name="bad", version="1"), {}, 3)
    for shard, keys in enumerate(KEYS):
        writer.commit(shard, keys, array=sizes if shard == 2 else np.abs(sizes))
    dataset.publish([writer.finish()], "bad")
    (problem,) = dataset.verify(deep=True)
    assert problem.sample == KEYS[2][2]
    assert problem.file.endswith("tok_depth@224/shard-000002.tar")
    assert "found ids -5 to 0, expected 0 to 8191" in problem.reason


def test_the_bytes_of_marked_samples_are_not_judged(dataset):
    writer = dataset.writer(modality("metadata"), Producer(name="m", version="1"), {}, 3)
    for shard, keys in enumerate(KEYS):
        writer.commit(shard, keys, payloads=[b"no json"] * 4, valid=[False] * 4)
    dataset.publish([writer.finish()], "marked")
    assert dataset.verify(deep=True) == []
