"""Statistics of labels: exact, the same however labels are grouped, and small."""

import json
from collections import Counter

import numpy as np
import pytest

from fourmill.manifests.labels import Encoding
from fourmill.manifests.modalities import (
    COARSE_CLASSES,
    Kind,
    Masking,
    Modality,
    modality,
    register,
)
from fourmill.manifests.summaries import merge, summarise, summarise_rows, used_share

RNG = np.random.default_rng(7)
VOCABULARY = 16_384


def _boxes(count: int) -> dict:
    names = [f"thing {RNG.integers(400)}" for _ in range(count)]
    scores = RNG.random(count).tolist()
    return {
        "instances": [
            {"boxes": [0, 0, 1, 1], "class_name": name, "score": score}
            for name, score in zip(names, scores, strict=True)
        ]
    }


register(
    Modality(
        "thermal-of-tests", Kind.PLANE, "thermal", "png", channels=1, value_range=(-40.0, 150.0)
    )
)
MAKE = {
    "thermal-of-tests": lambda: RNG.uniform(-40, 150, (30, 50)).astype(np.float32),
    "rgb": lambda: RNG.integers(0, 256, (50, 70, 3)).astype(np.uint8),
    "depth": lambda: RNG.random((90, 130)).astype(np.float32),
    "normal": lambda: RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8),
    "canny_edge": lambda: (RNG.random((64, 64)) > 0.9).astype(np.uint8) * 255,
    "semseg_coarse": lambda: RNG.integers(0, 21, (20, 40)).astype(np.uint8),
    "truth_instances": lambda: RNG.integers(0, 9, (20, 40)).astype(np.uint16),
    "vit_s_focus": lambda: RNG.normal(size=(384, 4, 8)).astype(np.float16),
    "imagenet_features": lambda: RNG.normal(size=1280).astype(np.float32),
    "t5_caption": lambda: RNG.normal(size=(int(RNG.integers(1, 5)), 4096)).astype(np.float16),
    "caption": lambda: "word " * int(RNG.integers(0, 12)),
    "det": lambda: _boxes(int(RNG.integers(0, 9))),
    "imagenet": lambda: [{"class_name": "cup", "score": float(RNG.random())}],
    "metadata": lambda: {"brightness": float(RNG.random())},
    "crop_settings": lambda: np.array([[0, 0, 9, int(RNG.integers(1, 9)), 0]]),
    "tok_rgb@224": lambda: RNG.integers(0, VOCABULARY, (2, 196)).astype(np.int16),
}
REFUSED = np.array([[np.nan, np.inf], [0, 1]], np.float32)


def test_every_kind_of_label_is_summarised_here():
    assert {modality(name).kind for name in MAKE} == set(Kind)


@pytest.mark.parametrize("name", MAKE)
def test_a_summary_is_the_same_however_labels_are_cut_into_blocks_and_shards(name):
    definition = modality(name)
    labels = [MAKE[name]() for _ in range(60)]
    whole = summarise(definition, labels, [REFUSED])
    for size in (1, 7, 32):
        blocks = [summarise(definition, labels[at : at + size]) for at in range(0, 60, size)]
        order = RNG.permutation(len(blocks))
        shards = [merge(blocks[each] for each in part) for part in np.array_split(order, 3)]
        shards.append(summarise(definition, [], [REFUSED]))
        assert merge(reversed(shards)) == whole
    assert whole["labels"] == 60
    assert merge([json.loads(json.dumps(whole))]) == whole
    assert len(json.dumps(whole)) < 8_000


def test_values_that_are_not_finite_are_counted_where_labels_are_refused_for_them():
    good = np.ones((3, 4), np.float32)
    found = summarise(modality("depth"), [good], [REFUSED, "no array", None])
    assert (found["labels"], found["values"], found["not_finite"]) == (1, 12 + 4, 2)


def test_the_histogram_of_depth_is_that_of_numpy():
    depths = [MAKE["depth"]()[:60, :60] for _ in range(5)]
    found = summarise(modality("depth"), depths)["histogram"]
    expected = np.histogram(np.stack(depths), bins=32, range=(0, 65536 / 65535))[0]
    assert found == expected.tolist()
    metres = Encoding(scale=0.001, offset=2.0)
    found = summarise(modality("depth"), [each * 65 + 2 for each in depths], encoding=metres)
    expected = np.histogram(np.stack(depths) * 65 + 2, bins=32, range=(2, 2 + 65.536))[0]
    np.testing.assert_allclose(found["histogram"], expected, atol=1)  # 32-bit values at an edge


def test_features_are_told_apart_by_sign_and_power_of_two():
    values = np.array([0, 0.5, 0.75, 1, 3.9, 4, -1, -200, 1e-9], np.float32)
    names = Modality("numbers-of-tests", Kind.VECTOR, "numbers", "npy", channels=9)
    bins = summarise(names, [values])["histogram"]
    placed = {place - 17: count for place, count in enumerate(bins) if count}
    # sizes from 2^-10 (1) to 2^6 (17): 0.5 and 0.75 are 2^-1, 3.9 is 2^1, what is out is at an end
    assert placed == {0: 1, 10: 2, 11: 1, 12: 1, 13: 1, -11: 1, -17: 1, 1: 1}


def test_classes_are_counted_by_name_and_unknown_places_apart():
    maps = [MAKE["semseg_coarse"]() for _ in range(3)]
    maps[0][:2] = 255
    found = summarise(modality("semseg_coarse"), maps)["classes"]
    named = [*COARSE_CLASSES, *["unknown"] * 235]
    assert found == Counter(named[each] for each in np.stack(maps).ravel().tolist())


def test_of_many_class_names_the_kept_ones_are_counted_in_full():
    labels = [_boxes(50) for _ in range(60)]
    every = Counter(box["class_name"] for label in labels for box in label["instances"])
    found = summarise(modality("det"), labels)["classes"]
    assert len(every) > 256
    assert len(found) == 256
    assert all(every[name] == count for name, count in found.items())


def test_boxes_and_words_are_counted_in_powers_of_two():
    found = summarise(modality("det"), [_boxes(each) for each in (0, 0, 1, 2, 3, 4, 7, 8)])
    assert found["empty"] == 2
    assert found["counts"][:5] == [2, 1, 2, 2, 1]
    found = summarise(modality("caption"), ["", "one", " two words ", "a b c"])
    assert (found["empty"], found["counts"][:3]) == (1, [1, 1, 2])


def test_scores_are_counted_in_twentieths():
    scores = RNG.random(500)
    label = [{"class_name": "cup", "score": each} for each in scores.tolist()]
    expected = np.histogram(scores, bins=20, range=(0, 1))[0]
    assert summarise(modality("imagenet"), [label])["scores"] == expected.tolist()


def test_the_share_of_used_ids_is_that_of_the_ids_that_occur():
    used = RNG.choice(VOCABULARY, VOCABULARY // 4, replace=False)
    labels = [RNG.choice(used, (2, 196)).astype(np.int16) for _ in range(100)]
    expected = np.unique(np.stack(labels)).size / VOCABULARY
    found = summarise(modality("tok_rgb@224"), labels)
    # 1,024 ids are watched: three standard deviations of a share of a quarter
    assert abs(used_share(found, modality("tok_rgb@224")) - expected) < 3 * (0.25 / 1024) ** 0.5


def test_labels_that_are_all_the_same_are_seen_and_constant_ones_too():
    label = MAKE["normal"]()
    found = summarise(modality("normal"), [label] * 9)
    assert list(found["distinct"].values()) == [9]
    assert found["constant"] == 0
    flat = np.full((5, 5), 3, np.uint8)
    assert summarise(modality("canny_edge"), [flat, flat + 1])["constant"] == 2
    letters = summarise(modality("caption"), list("abcdefghijklmnopqrst"))
    assert list(letters["distinct"].values()) == [1] * 16


@pytest.mark.parametrize(
    ("definition", "shape"),
    [
        (modality("tok_rgb@224"), (3, 196)),
        (Modality("tok_words", Kind.TOKENS, "tok_words", "npy", Masking.SEQUENCE, 5000, 9), (9,)),
        (modality("crop_settings"), (4, 5)),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_rows_summarised_at_once_are_as_those_summarised_one_by_one(definition, shape):
    rows = RNG.integers(0, definition.vocab_size or 9, (40, *shape)).astype(np.int16)
    rows[:, ..., -1] *= RNG.random((40, *shape[:-1])) > 0.5
    rows[7] = rows[8] = 0
    at_once = summarise_rows(definition, rows)
    assert at_once == summarise(definition, list(rows))
    assert sum(at_once["distinct"].values()) <= 40
    assert max(Counter(summarise(definition, list(rows[6:9]))["distinct"]).values()) == 2
