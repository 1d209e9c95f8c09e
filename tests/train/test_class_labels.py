"""The class of a sample, which evaluation, probes and fine-tuning find by one rule."""

import numpy as np
import pytest

from fourmill.manifests.errors import ConfigError
from fourmill.train.class_labels import ClassLabel

LIKELY = [{"class_name": "owl", "score": 0.9}, {"class_name": "cat", "score": 0.1}]


@pytest.mark.parametrize(
    ("place", "label", "name"),
    [
        ("caption", "cat ", "cat"),
        ("kind", {"class": "dog"}, "dog"),
        ("imagenet", LIKELY, "owl"),
        ("imagenet.0", LIKELY, "owl"),
        ("imagenet.1.class_name", LIKELY, "cat"),
        ("truth", {"label": 3}, "3"),
        ("source.file", {"file": "amber/1.png", "name": "one"}, "amber/1.png"),
        ("det.instances", {"instances": LIKELY}, "owl"),
        ("metadata.brightness", {"brightness": 0.5}, "0.5"),
    ],
)
def test_a_class_is_the_name_of_what_is_at_its_place(place: str, label: object, name: str) -> None:
    assert ClassLabel.parse(place).of(label) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("caption", " "), ("caption", None), ("imagenet", []), ("imagenet", {}),
        ("imagenet", {"label": None}), ("imagenet.5", LIKELY), ("source.file", {"url": "x"}),
        ("caption.file", "a text"),
    ],
)  # fmt: skip
def test_where_nothing_is_said_there_is_no_class(place: str, label: object) -> None:
    assert ClassLabel.parse(place).of(label) is None  # type: ignore[arg-type]


def test_what_cannot_be_a_class_is_refused_and_says_where_one_could_be() -> None:
    with pytest.raises(ConfigError, match=r"source: found dict.*: source\.file, source\.url"):
        ClassLabel.parse("source").of({"url": "x", "file": "y"})
    with pytest.raises(ConfigError, match=r"depth: found ndarray, expected a text"):
        ClassLabel.parse("depth").of(np.zeros((2, 2), np.float32))
