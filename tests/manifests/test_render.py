"""Labels as pictures: what they look like, not only that they are made."""

import numpy as np
import pytest
from skimage import data

from fourmill.manifests.colouring import class_colours, feature_colours
from fourmill.manifests.lettering import drawable
from fourmill.manifests.modalities import COARSE_CLASSES, Kind, Modality, modality, register
from fourmill.manifests.render import legend, render, sheet

WIDE = data.coffee()[:200, :400]  # uint8 [200, 400, 3]
RNG = np.random.default_rng(0)

register(
    Modality("height-of-tests", Kind.PLANE, "height", "png", channels=1, value_range=(-10.0, 90.0))
)
LABELS = {
    "height-of-tests": RNG.uniform(-10, 90, (30, 50)).astype(np.float32),
    "rgb": WIDE,
    "depth": np.linspace(0, 1, 200 * 400, dtype=np.float32).reshape(200, 400),
    "normal": np.full((50, 100, 3), (128, 128, 255), np.uint8),
    "canny_edge": RNG.integers(0, 256, (200, 400)).astype(np.uint8),
    "semseg_coarse": RNG.integers(0, 21, (20, 40)).astype(np.uint8),
    "truth_instances": RNG.integers(0, 900, (20, 40)).astype(np.uint16),
    "vit_s_focus": RNG.normal(size=(384, 4, 8)).astype(np.float16),
    "imagenet_features": RNG.normal(size=1280).astype(np.float32),
    "t5_caption": RNG.normal(size=(9, 4096)).astype(np.float16),
    "caption": "two cups ☕ of “café” 珈琲 \U0001fae0\x00\n\n" + 400 * "x",
    "det": {"instances": [{"boxes": [0, 0.2, 1, 1], "class_name": "cup", "score": 0.5}]},
    "color_palette": [{"1": [[255, 0, 0]], "2": [[255, 0, 0], [0, 0, 255]]}],
    "imagenet": [{"class_name": "espresso", "score": 0.9}, {"class_name": "cup", "score": 0.1}],
    "metadata": {"brightness": 127.5, "original_width": 400},
    "human_poses": [],
    "crop_settings": np.array([[0, 100, 200, 200, 0], [20, 10, 90, 80, 1]]),
    "tok_rgb@224": RNG.integers(0, 16_384, (2, 196)).astype(np.int16),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("size", [16, 160])
@pytest.mark.parametrize("image", [None, WIDE])
def test_a_label_of_every_kind_is_a_square_that_is_the_same_every_time(name, size, image):
    first = render(modality(name), LABELS[name], size, image)
    assert first.shape == (size, size, 3)
    assert np.unique(first).size > 1
    np.testing.assert_array_equal(first, render(modality(name), LABELS[name], size, image))


def test_every_kind_of_label_has_its_picture_here():
    assert {modality(name).kind for name in LABELS} == set(Kind)


def test_a_wide_picture_keeps_its_proportions_and_dense_labels_lie_on_it():
    picture = render(modality("rgb"), WIDE, 100)
    assert (picture[:25] == 255).all()
    assert (picture[75:] == 255).all()
    assert abs(float(picture[25:75].mean()) - float(WIDE.mean())) < 1
    square = np.full((10, 10, 3), 128, np.uint8)
    beside = render(modality("normal"), square, 100, image=WIDE)
    assert (beside[25:75] == 128).all()
    assert (beside[:25] == 255).all()


def test_what_is_near_is_bright():
    depth = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None], 64, axis=0)
    brightness = render(modality("depth"), depth, 64).mean(axis=(0, 2))
    assert (np.diff(brightness) <= 0).all()
    assert brightness[0] - brightness[-1] > 150


def test_beside_another_label_the_same_depth_has_the_same_colour():
    depth = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None], 64, axis=0)
    near_half = np.ascontiguousarray(depth[:, :32])
    alike = render(modality("depth"), near_half, 64, like=depth)[:, 16:48]
    np.testing.assert_array_equal(alike, render(modality("depth"), depth, 64)[:, :32])


def test_features_keep_their_colours_whatever_the_sign_and_order_of_channels():
    features = RNG.normal(size=(32, 6, 9)).astype(np.float16)
    features[0] *= 9
    features[1] *= 6
    features[2] *= 3
    shuffled = features[RNG.permutation(32)]
    np.testing.assert_allclose(
        feature_colours(features).astype(int), feature_colours(shuffled), atol=1
    )


def test_a_map_of_fewer_pixels_or_channels_than_colours_is_drawn_too():
    for shape in ((384, 1, 1), (2, 3, 3)):
        assert feature_colours(RNG.normal(size=shape).astype(np.float16)).shape[2] == 3


def test_all_classes_have_colours_that_can_be_told_apart():
    for classes in (COARSE_CLASSES, tuple(f"class {number}" for number in range(133))):
        used = np.unique(class_colours(classes)[[*range(len(classes)), 255]], axis=0)
        assert len(used) == len(classes) + 1
        distances = np.linalg.norm(used[:, None].astype(float) - used, axis=2)
        assert distances[distances > 0].min() > 15


def test_a_box_is_drawn_where_it_is_with_its_name():
    label = {"instances": [{"boxes": [0.25, 0.5, 0.75, 1.0], "class_name": "cup", "score": 1}]}
    grey = np.full((100, 200, 3), 90, np.uint8)
    picture = render(modality("det"), label, 200, image=grey)
    changed = (picture[50:150] != 90).any(axis=-1)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (columns.min(), columns.max()) == (50, 149)
    assert rows.max() == 99
    assert 30 <= rows.min() < 50  # the name is above the box


def test_the_largest_palette_is_shown_in_its_order():
    picture = render(modality("color_palette"), LABELS["color_palette"], 96)
    assert picture[48, 30].tolist() == [255, 0, 0]
    assert picture[48, 66].tolist() == [0, 0, 255]


def test_a_missing_label_looks_like_none_that_is_there():
    assert not np.array_equal(
        render(modality("caption"), None, 96), render(modality("caption"), "", 96)
    )


def test_token_ids_of_text_are_written_out():
    words = Modality("tok_words", Kind.TOKENS, "tok_words", "npy", max_tokens=3)
    assert np.unique(render(words, np.array([5, 17, 2], np.int16), 96)).size > 2


def test_letters_that_no_font_has_become_squares_and_controls_vanish():
    assert drawable("naïve ☕ 珈\u202e\x07") == "naïve ☕ □"


def test_a_sheet_holds_every_picture_and_refuses_a_crooked_table():
    red, blue = (np.full((64, 64, 3), each, np.uint8) for each in ((255, 0, 0), (0, 0, 255)))
    page = sheet([[red, blue], [blue, red]], ["first", "a_very_long_name@224"], ["1", "2"], "Title")
    colours = np.asarray(page).reshape(-1, 3)
    assert (colours == (255, 0, 0)).all(axis=1).sum() == 2 * 64 * 64
    assert (colours == (0, 0, 255)).all(axis=1).sum() == 2 * 64 * 64
    with pytest.raises(ValueError, match="2 columns"):
        sheet([[red]], ["a", "b"])
    with pytest.raises(ValueError, match="one size"):
        sheet([[red, red[:32]]], ["a", "b"])
    with pytest.raises(ValueError, match="3 titles for 1 rows"):
        sheet([[red]], ["a"], ["1", "2", "3"])


def test_a_legend_names_every_class_in_its_colour():
    page = np.asarray(legend(COARSE_CLASSES)).reshape(-1, 3)
    for colour in class_colours(COARSE_CLASSES)[: len(COARSE_CLASSES)]:
        assert (page == colour).all(axis=1).sum() >= 200
