"""Each expert says of real and of made pictures what anybody would say."""

import numpy as np
import pytest

from fourmill.labelers.coco import COCO_NAMES


def label(bench, name, rgb, **more):
    (labels,) = bench.labeler(name).label([{"key": "x", "rgb": rgb, **more}])
    return labels


def picture(bench, key):
    return next(each for each in bench.samples(["rgb"]) if each["key"] == key)["rgb"]


@pytest.mark.packages
def test_a_cat_is_a_cat(bench) -> None:
    cat = picture(bench, "cat")
    classes = label(bench, "imagenet", cat)["imagenet"]
    assert "cat" in classes[0]["class_name"]
    scores = [each["score"] for each in classes]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    (found,) = label(bench, "detection", cat)["det"]["instances"]
    x0, y0, x1, y1 = found["boxes"]
    assert found["class_name"] == "cat"
    assert (x1 - x0) * (y1 - y0) > 0.7  # it fills the picture


@pytest.mark.packages
def test_a_cup_of_coffee_is_a_cup_and_stands_out(bench) -> None:
    coffee = picture(bench, "coffee")
    names = [each["class_name"] for each in label(bench, "detection", coffee)["det"]["instances"]]
    assert "cup" in names
    layers = label(bench, "vit-s-focus", coffee)
    salient = label(bench, "saliency", coffee, **layers)["saliency"].astype(float)
    height, width = salient.shape
    middle = salient[height // 4 : height // 2, width // 3 : -width // 3].mean()
    assert middle > 3 * max(salient[:8].mean(), salient[-8:].mean())


def test_nothing_is_found_in_nothing(bench) -> None:
    black = picture(bench, "black")
    assert not label(bench, "edges", black)["canny_edge"].any()
    (palette,) = label(bench, "palette", black)["color_palette"]
    assert all(colour == [0, 0, 0] for colours in palette.values() for colour in colours)


def test_edges_are_where_brightness_jumps(bench) -> None:
    square = np.full((100, 100, 3), 40, np.uint8)
    square[30:70, 30:70] = 200
    rows, columns = np.nonzero(label(bench, "edges", square)["canny_edge"])
    sides = (
        np.minimum(abs(rows - 29.5), abs(rows - 69.5)),
        np.minimum(abs(columns - 29.5), abs(columns - 69.5)),
    )
    assert np.minimum(*sides).max() <= 2
    assert len(rows) > 120  # most of the outline of 160 pixels


@pytest.mark.packages
def test_learned_edges_are_strong_on_an_outline_and_weak_beside_it(bench) -> None:
    square = np.full((100, 100, 3), 40, np.uint8)
    square[30:70, 30:70] = 200
    edges = label(bench, "hed", square)["hed_edge"]
    assert edges[40:60, 28:32].max(axis=1).mean() > 2 * edges[40:60, 45:55].mean()


def test_a_palette_of_two_colours_is_those_two(bench) -> None:
    flag = np.zeros((60, 90, 3), np.uint8)
    flag[:, :60], flag[:, 60:] = (200, 30, 40), (250, 240, 230)
    (palette,) = label(bench, "palette", flag)["color_palette"]
    assert sorted(palette, key=int) == list("1234567")
    assert [len(palette[count]) for count in "1234567"] == list(range(1, 8))
    assert np.abs(np.array(palette["2"]) - [(200, 30, 40), (250, 240, 230)]).max() <= 2


def test_metadata_counts_what_captions_and_boxes_say(bench) -> None:
    grey = np.full((32, 64, 3), 128, np.uint8)
    box = {"boxes": [0, 0, 1, 1], "score": 0.9}
    det = {"instances": [box | {"class_name": name} for name in ("person", "dog", "dog")]}
    found = label(bench, "metadata", grey, caption="Dogs run. Why? A man...", det=det)["metadata"]
    assert (found["original_width"], found["original_height"]) == (64, 32)
    assert found["brightness"] == 128
    assert found["contrast"] == found["saturation"] == found["entropy"] == 0
    assert found["caption_n_words"] == 5
    assert found["caption_n_sentences"] == 3
    assert (found["n_coco_instances"], found["coco_instance_diversity"]) == (3, 2)
    assert found["n_humans"] == 1
    bare = label(bench, "metadata", grey, caption=None, det=None)["metadata"]
    assert not any(name.startswith(("caption", "n_", "coco")) for name in bare)


def test_coco_has_eighty_names_under_its_own_ids() -> None:
    assert len(COCO_NAMES) == len(set(COCO_NAMES.values())) == 80
    assert (COCO_NAMES[1], COCO_NAMES[90]) == ("person", "toothbrush")
    assert (COCO_NAMES[17], COCO_NAMES[44], COCO_NAMES[72]) == ("cat", "bottle", "tv")
