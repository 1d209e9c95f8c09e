"""Versions put aside: looked at before they are current, then current in one step."""

import pytest

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SnapshotError, UnknownNameError


@pytest.fixture
def finer(dataset, write_captions) -> Dataset:
    """The dataset with better captions aside, under the name `finer`."""
    dataset.put_aside("finer", [write_captions(dataset, producer="blip", text="one cat")], "label")
    return dataset


def _caption(dataset: Dataset) -> str:
    return next(dataset.samples(["caption"]))["caption"]


def test_what_is_aside_can_be_read_and_compared_while_nothing_current_changes(finer):
    again = Dataset.open(finer.url)
    assert _caption(again) == "a cat 0"
    assert _caption(again.at("finer")) == "one cat 0"
    (change,) = again.diff("HEAD", "finer")
    assert change.modality == "caption"
    assert len(again.log()) == 2
    assert list(again.names) == ["finer"]
    assert again.verify(deep=True) == []
    assert again.status().unfinished == []


def test_switching_makes_it_current_in_one_step_that_can_be_undone(finer):
    before = finer.head
    finer.switch("finer")
    again = Dataset.open(finer.url)
    assert _caption(again) == "one cat 0"
    assert again.head.parent == before.id
    assert again.names == {}
    stale = {each.modality for each in again.status().modalities if each.is_stale}
    assert stale == {"tok_rgb@224"}
    again.rollback("HEAD~1")
    assert Dataset.open(finer.url).modalities == before.modalities


def test_after_it_was_switched_to_and_undone_it_can_be_cleaned_away(finer):
    folder = finer.at("finer").modalities["caption"].folder
    finer.switch("finer")
    finer.rollback("HEAD~1")
    assert folder in {each.path for each in finer.gc(keep=1)}
    assert finer.verify(deep=True) == []


def test_what_others_publish_meanwhile_stays(finer, write_tokens):
    other = Dataset.open(finer.url)
    other.publish([write_tokens(other, producer="better")], "retokenize")
    finer.switch("finer")
    producers = {name: each.producer.name for name, each in finer.modalities.items()}
    assert producers == {"caption": "blip", "tok_rgb@224": "better"}


def test_when_somebody_else_published_the_same_modality_it_is_refused(finer, write_captions):
    other = Dataset.open(finer.url)
    other.publish([write_captions(other, producer="git", text="my cat")], "recaption")
    with pytest.raises(SnapshotError, match="somebody else published caption meanwhile"):
        Dataset.open(finer.url).switch("finer")
    assert _caption(Dataset.open(finer.url)) == "my cat 0"


def test_more_can_be_put_aside_under_a_name_and_all_of_it_becomes_current(finer, write_tokens):
    aside = finer.at("finer")
    tokens = write_tokens(aside, producer="better")
    finer.put_aside("finer", [tokens], "tokenize")
    finer.switch("finer")
    producers = {name: each.producer.name for name, each in finer.modalities.items()}
    assert producers == {"caption": "blip", "tok_rgb@224": "better"}
    assert {each.state for each in finer.status().modalities} == {"current"}


def test_cleaning_keeps_what_is_aside_until_it_is_forgotten(finer):
    folder = finer.at("finer").modalities["caption"].folder
    assert finer.gc(keep=1, unfinished=True, dry_run=True) != []
    finer.gc(keep=1, unfinished=True)
    assert _caption(Dataset.open(finer.url).at("finer")) == "one cat 0"
    finer.drop("finer")
    assert folder in {each.path for each in finer.gc(unfinished=True)}
    assert finer.verify(deep=True) == []


def test_names_that_are_none_are_refused(finer, write_captions):
    for name in ("HEAD", "../HEAD", "a/b", "0af3", "", "a" * 65):
        with pytest.raises(ConfigError, match="cannot name a snapshot"):
            finer.put_aside(name, [finer.modalities["caption"]], "no")
    with pytest.raises(UnknownNameError, match="did you mean 'finer'"):
        finer.switch("fine")
    with pytest.raises(SnapshotError, match="only 1 snapshots before the head"):
        finer.snapshot("HEAD~2")
