"""Where two labels differ, as a picture: dark where they agree, bright where they do not."""

import numpy as np
import pytest

from fourmill.manifests.differing import difference, difference_map
from fourmill.manifests.modalities import modality

RNG = np.random.default_rng(1)
IMAGE = np.full((40, 80, 3), 90, np.uint8)

PAIRS = {
    "normal": (np.full((20, 40, 3), (128, 128, 255), np.uint8), (255, 128, 128)),
    "canny_edge": (np.zeros((20, 40), np.uint8), 255),
    "semseg_coarse": (np.zeros((20, 40), np.uint8), 3),
    "truth_instances": (np.zeros((20, 40), np.uint16), 1),
    "vit_s_focus": (RNG.normal(size=(384, 20, 40)).astype(np.float16),) * 2,
    "rgb": (np.zeros((20, 40, 3), np.uint8), 255),
}


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_dark_where_labels_agree_and_bright_in_the_part_where_they_do_not(name):
    definition = modality(name)
    one, changed = PAIRS[name]
    same = difference_map(definition, one, definition, one)
    assert same.max() < 1e-3
    other = one.copy()
    part = (..., slice(0, 10), slice(0, 10)) if one.ndim == 2 or name == "vit_s_focus" else (
        slice(0, 10), slice(0, 10)
    )  # fmt: skip
    other[part] = -one[part] if name == "vit_s_focus" else changed if np.ndim(changed) < 2 else 5
    found = difference_map(definition, one, definition, other)
    assert found[:10, :10].mean() > 0.8
    assert found[12:, 12:].mean() < 0.3
    picture = difference(definition, one, definition, other, 80, IMAGE)
    assert picture.shape == (80, 80, 3)
    assert (picture[:20] == 255).all()  # the picture is wide: white above
    assert picture[22:38, 2:18].mean() > picture[45:58, 30:].mean() + 50


def test_depth_in_another_scale_differs_only_where_something_else_is_seen():
    depth = np.tile(np.linspace(0.1, 0.9, 80, dtype=np.float32), (40, 1))
    other = 3 * depth + 1
    found = difference_map(modality("depth"), depth, modality("depth"), other)
    assert found.max() < 1e-4
    other[:4, :8] += 2  # a small thing, so that the fit is hardly led astray
    found = difference_map(modality("depth"), depth, modality("depth"), other)
    assert found[:4, :8].min() > 10 * np.median(found)


def test_a_label_that_is_missing_leaves_nothing_to_compare():
    edges = modality("canny_edge")
    picture = difference(edges, None, edges, np.zeros((4, 4), np.uint8), 64, IMAGE)
    assert np.unique(picture).size > 1
