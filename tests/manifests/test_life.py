"""The life of a dataset: publish, look back, compare, go back, notice what is stale, clean up."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from tests.manifests.conftest import KEYS, tokens_of

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import (
    ConfigError,
    DatasetError,
    SampleError,
    SnapshotError,
    UnknownNameError,
)
from fourmill.manifests.modalities import Kind, Modality, modality
from fourmill.manifests.snapshots import Producer, VersionEntry


def states(dataset: Dataset) -> dict[str, str]:
    return {each.modality: each.state for each in dataset.status().modalities}


def age(root: Path, days: float = 2) -> None:
    """As if all that lies there had been written so long ago."""
    for each in root.rglob("*"):
        os.utime(each, (time.time() - 86_400 * days,) * 2)


def test_what_is_published_can_be_read_back_aligned(dataset):
    again = Dataset.open(dataset.url)
    samples = list(again.samples(["caption", "tok_rgb@224"]))
    assert [each["key"] for each in samples] == [key for shard in KEYS for key in shard]
    assert [each["caption"] for each in samples[:4]] == ["a cat 0", "a cat 1", "a cat 2", None]
    np.testing.assert_array_equal(samples[5]["tok_rgb@224"], tokens_of(1)[1])
    np.testing.assert_array_equal(np.stack(again.tokens("tok_rgb@224")[:1]), tokens_of(0)[None])
    assert [each["key"] for each in again.samples(["caption"], split="val")] == KEYS[2]
    assert again.failures("caption")[0].message == "no caption"
    raw = next(iter(again.samples(["caption"], decode=False)))
    assert raw["caption"] == b"a cat 0"


def test_publishing_what_is_current_changes_nothing(dataset):
    before = dataset.head
    assert dataset.publish(list(dataset.modalities.values()), "again").id == before.id


def test_names_that_nobody_knows_suggest_the_nearest(dataset):
    with pytest.raises(UnknownNameError, match="did you mean 'caption'"):
        dataset.shards("captoin")
    with pytest.raises(UnknownNameError, match="split called 'vall'; did you mean 'val'"):
        dataset.shard_indices("vall")
    with pytest.raises(ConfigError, match="has no shard 3, only 0 to 2"):
        dataset.shard("caption", 3)


def test_a_snapshot_is_named_by_its_content_and_a_changed_one_is_refused(dataset, tmp_path):
    path = tmp_path / "dataset" / "snapshots" / f"{dataset.head.id}.json"
    path.write_bytes(path.read_bytes().replace(b'"tokenize"', b'"tokenise"'))
    with pytest.raises(SnapshotError, match="the file was changed"):
        Dataset.open(dataset.url)
    path.unlink()
    with pytest.raises(SnapshotError, match="is missing"):
        Dataset.open(dataset.url)


def test_the_log_and_the_difference_say_what_happened(dataset, write_captions):
    first = dataset.log()[-1].id
    dataset.publish([write_captions(dataset, producer="blip", text="one cat")], "recaption")
    assert [each.snapshot.message for each in dataset.log()] == ["recaption", "tokenize", "ingest"]
    changes = {each.modality: each for each in dataset.diff(first[:8])}
    assert changes["tok_rgb@224"].kind == "added"
    assert changes["caption"].kind == "changed"
    assert changes["caption"].reasons == ("producer ingest 1 -> blip 1",)
    assert dataset.diff("HEAD") == []


def test_new_captions_make_the_tokens_stale_until_one_goes_back(dataset, write_captions):
    before = dataset.head
    assert states(dataset) == {"caption": "current", "tok_rgb@224": "current"}
    dataset.publish([write_captions(dataset, producer="blip", text="one cat")], "recaption")
    assert states(dataset) == {"caption": "current", "tok_rgb@224": "stale: caption changed"}
    assert next(dataset.samples(["caption"]))["caption"] == "one cat 0"
    dataset.rollback(before.id[:10])
    assert states(Dataset.open(dataset.url))["tok_rgb@224"] == "current"
    assert next(Dataset.open(dataset.url).samples(["caption"]))["caption"] == "a cat 0"
    assert dataset.head.id != before.id  # going back is a step of its own, and can be undone
    assert len(dataset.log()) == 4


def test_new_captions_with_the_same_bytes_make_nothing_stale(dataset, write_captions):
    dataset.publish([write_captions(dataset, producer="ingest again")], "recaption")
    assert states(dataset)["tok_rgb@224"] == "current"


def test_what_was_made_from_its_own_predecessor_is_not_stale(dataset):
    sources = {"caption": dataset.modalities["caption"]}
    writer = dataset.writer(modality("caption"), Producer(name="better", version="1"), sources, 3)
    for shard, keys in enumerate(KEYS):
        writer.commit(shard, keys, payloads=[b"a very fine cat"] * 4)
    dataset.publish([writer.finish()], "rewrite")
    assert states(dataset) == {"caption": "current", "tok_rgb@224": "stale: caption changed"}


def test_two_who_publish_at_once_both_succeed_unless_they_change_the_same(
    dataset, write_captions, write_tokens
):
    one, other, third = (Dataset.open(dataset.url) for _ in range(3))
    one.publish([write_captions(one, producer="blip", text="one cat")], "recaption")
    entry = write_tokens(other, producer="better")
    other.publish([entry], "retokenize")
    both = Dataset.open(dataset.url).modalities
    assert both["caption"].producer.name == "blip"
    assert both["tok_rgb@224"].producer.name == "better"
    with pytest.raises(SnapshotError, match="somebody else published caption meanwhile"):
        third.publish([write_captions(third, producer="git", text="my cat")], "recaption")


def test_unfinished_work_is_listed_and_removed_only_when_old_or_asked_for(dataset, tmp_path):
    writer = dataset.writer(modality("metadata"), Producer(name="m", version="2"), {}, 3)
    writer.commit(0, KEYS[0], payloads=[b"{}"] * 4)
    (unfinished,) = dataset.status().unfinished
    assert (unfinished.folder, unfinished.producer) == ("metadata", "m 2")
    assert (unfinished.shards_done, unfinished.shards) == (1, 3)
    (tmp_path / "dataset" / ".tmp").mkdir(exist_ok=True)
    (tmp_path / "dataset" / ".tmp" / "shard-000001.tar.123").write_bytes(b"half")
    assert dataset.gc() == []
    garbage = dataset.gc(dry_run=True, unfinished=True)
    assert {each.path for each in garbage} == {"metadata", ".tmp/shard-000001.tar.123"}
    age(tmp_path / "dataset" / "metadata")
    assert [each.path for each in dataset.gc()] == ["metadata"]
    assert dataset.status().unfinished == []
    assert dataset.verify(deep=True) == []


def test_cleaning_keeps_what_the_kept_snapshots_need(dataset, write_captions, tmp_path):
    old_folder = dataset.modalities["caption"].folder
    dataset.publish([write_captions(dataset, producer="blip", text="one cat")], "recaption")
    assert dataset.gc() == []
    dropped = dataset.gc(keep=1)
    assert sorted(each.path.split("/")[0] for each in dropped) == [old_folder, *["snapshots"] * 2]
    assert sum(each.bytes for each in dropped) > 3 * 10_240
    assert not (tmp_path / "dataset" / old_folder).exists()
    again = Dataset.open(dataset.url)
    assert [each.snapshot.message for each in again.log()] == ["recaption"]
    assert again.verify(deep=True) == []
    with pytest.raises(ConfigError, match="keep is 0"):
        again.gc(keep=0)


def test_cleaning_spares_a_snapshot_that_somebody_is_about_to_publish(
    dataset, write_captions, tmp_path
):
    before = (tmp_path / "dataset" / "HEAD").read_bytes()
    other = Dataset.open(dataset.url)
    other.publish([write_captions(other, producer="blip", text="one cat")], "recaption")
    (tmp_path / "dataset" / "HEAD").write_bytes(before)  # the moment before the last step
    age(tmp_path / "dataset" / other.modalities["caption"].folder)
    assert dataset.gc() == []
    age(tmp_path / "dataset" / "snapshots")
    assert len(dataset.gc()) == 2
    assert dataset.verify(deep=True) == []


def test_a_dataset_that_somebody_else_defined_is_read_without_knowing_its_modalities(dataset):
    sharpness = Modality("sharpness-of-tests", Kind.STRUCTURE, "sharpness", "json")
    writer = dataset.writer(sharpness, Producer(name="s", version="1"), {}, 3)
    for shard, keys in enumerate(KEYS):
        writer.commit(shard, keys, payloads=[b'{"sharp":true}'] * 4)
    dataset.publish([writer.finish()], "sharpness")
    again = Dataset.open(dataset.url)
    assert next(again.samples(["sharpness-of-tests"]))["sharpness-of-tests"] == {"sharp": True}
    assert modality("sharpness-of-tests") == sharpness


@pytest.mark.parametrize(
    "folder", ["../elsewhere", "/tmp/elsewhere", "snapshots", ".hidden", "a/b"]
)
def test_a_manifest_cannot_point_outside_its_root(dataset, folder):
    entry = dataset.modalities["caption"].model_dump()
    with pytest.raises(ValueError, match="cannot be the folder of a version"):
        VersionEntry.model_validate(entry | {"folder": folder})


def test_a_manifest_of_a_later_fourmill_is_refused_with_advice(dataset, tmp_path):
    text = dataset.head.to_bytes().decode().replace('"schema_version":1', '"schema_version":7')
    place = tmp_path / "dataset" / "snapshots" / f"{dataset.head.id}.json"
    place.write_text(text)
    with pytest.raises(SnapshotError, match="schema 7, this fourmill knows schema 1: use a newer"):
        Dataset.open(dataset.url)


def test_an_empty_place_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="fourmill ingest"):
        Dataset.open(str(tmp_path / "nothing"))
    with pytest.raises(SnapshotError, match="nothing has been published yet"):
        Dataset.open(str(tmp_path / "nothing"), create=True).head  # noqa: B018
    assert not (tmp_path / "nothing").exists()


def test_a_label_that_does_not_decode_names_its_modality(dataset):
    writer = dataset.writer(modality("metadata"), Producer(name="m", version="1"), {}, 3)
    for shard, keys in enumerate(KEYS):
        writer.commit(shard, keys, payloads=[b"no json"] * 4)
    dataset.publish([writer.finish()], "metadata")
    with pytest.raises(SampleError, match=re.escape("metadata: not readable as structure")):
        list(dataset.samples(["metadata"]))
