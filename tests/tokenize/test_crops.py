"""Crops: inside the image, the same for everybody, and mirrored as the world would be."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.crops import crop_dense, crop_known_depth, crop_settings

SIDES = st.integers(1, 3000)


@given(height=SIDES, width=SIDES, count=st.integers(1, 6), scale=st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_every_crop_lies_inside_the_image(height, width, count, scale):
    top, left, rows, columns, flip = crop_settings("a", height, width, count, 0, scale).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (rows >= 1).all()
    assert (columns >= 1).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    assert np.isin(flip, (0, 1)).all()


@given(height=SIDES, width=SIDES, key=st.text(max_size=20))
@settings(deadline=None)
def test_more_crops_leave_the_first_as_they_are(height, width, key):
    few, many = (crop_settings(key, height, width, count) for count in (2, 5))
    np.testing.assert_array_equal(few, many[:2])


def test_the_first_crop_is_the_centre_square_unflipped():
    assert crop_settings("any", 300, 400, 3)[0].tolist() == [0, 50, 300, 300, 0]


def test_keys_seeds_and_numbers_of_a_crop_draw_different_crops():
    rows = [
        crop_settings(key, 700, 900, 3, seed)[i] for key in "ab" for seed in (0, 1) for i in (1, 2)
    ]
    assert len({tuple(each) for each in rows}) == len(rows)


def test_crops_are_those_that_were_published_once():
    # datasets store tokens of these crops: another law of drawing would misalign them silently
    rows = crop_settings("photo-17", 480, 640, 4, 3, 0.4)
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "3039b64076191fea"


def test_the_area_of_crops_is_spread_over_the_whole_range():
    rows = np.concatenate([crop_settings(str(i), 600, 600, 2, 0, 0.2)[1:] for i in range(600)])
    share = rows[:, 2] * rows[:, 3] / 600**2
    assert share.min() > 0.19
    assert 0.5 < share.mean() < 0.62  # a little below the middle: large ones must fit
    assert 0.4 < rows[:, 4].mean() < 0.6


@pytest.mark.parametrize(
    "kind", [Kind.IMAGE, Kind.NORMAL, Kind.PLANE, Kind.CLASSES, Kind.FEATURE_MAP]
)
def test_a_flipped_crop_is_the_crop_of_the_mirrored_scene(kind, photographs):
    photo = photographs["coffee"]
    if kind is Kind.FEATURE_MAP:
        label = (photo[::30, ::30] / 100).astype(np.float16).transpose(2, 0, 1)
        mirrored = label[..., ::-1].copy()
    elif kind is Kind.CLASSES:
        label = photo[..., 0] // 16
        mirrored = label[:, ::-1].copy()
    elif kind is Kind.PLANE:
        label = photo.mean(axis=-1, dtype=np.float32)
        mirrored = label[:, ::-1].copy()
    else:
        label = photo
        mirrored = label[:, ::-1].copy()
    if kind is Kind.NORMAL:
        vectors = label.astype(float) / 127.5 - 1
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-3)
        label = np.rint(127.5 * (unit + 1)).astype(np.uint8)
        mirrored = label[:, ::-1].copy()
        mirrored[..., 0] = 255 - mirrored[..., 0]
    size = photo.shape[:2]
    flipped = crop_dense(label, kind, np.array([[20, 50, 304, 304, 1]]), size, 16)
    direct = crop_dense(mirrored, kind, np.array([[20, 600 - 50 - 304, 304, 304, 0]]), size, 16)
    difference = np.abs(flipped.astype(float) - direct.astype(float))
    assert np.quantile(difference, 0.98) <= {Kind.CLASSES: 0, Kind.FEATURE_MAP: 0.01}.get(kind, 2)


def test_labels_of_any_resolution_show_the_same_part(photographs):
    photo = photographs["astronaut"]
    half = photo.reshape(256, 2, 256, 2, 3).mean((1, 3)).round().astype(np.uint8)
    crops = np.array([[100, 200, 256, 256, 0]])
    large, small = (crop_dense(each, Kind.IMAGE, crops, (512, 512), 64) for each in (photo, half))
    assert np.abs(large.astype(float) - small).mean() < 2


def test_class_ids_are_never_mixed(photographs):
    ids = np.where(photographs["china"][..., 2] > 150, 3, 9).astype(np.uint8)
    crops = crop_settings("china", 427, 640, 8)
    assert set(np.unique(crop_dense(ids, Kind.CLASSES, crops, (427, 640), 50))) == {3, 9}


def test_resampled_normals_are_unit_vectors_and_unknown_stays_unknown():
    normals = np.full((40, 40, 3), (128, 128, 255), np.uint8)
    normals[:, 20:] = (255, 128, 128)
    normals[:10] = 128
    cropped = crop_dense(normals, Kind.NORMAL, np.array([[0, 0, 40, 40, 0]]), (40, 40), 14)[0]
    length = np.linalg.norm(cropped / 127.5 - 1, axis=-1)
    assert ((np.abs(length - 1) < 0.02) | (length < 0.02)).all()
    assert (length[:3] < 0.02).all()


@pytest.mark.parametrize("arguments", [(0, 5, 1), (5, 5, 0), (5, 5, 1, 0, 0.0), (5, 5, 1, 0, 1.5)])
def test_impossible_crops_are_refused(arguments):
    with pytest.raises(ConfigError, match="expected at least one crop"):
        crop_settings("a", *arguments)


def test_depth_that_is_half_known_is_known_and_that_of_less_is_not():
    """Evaluation and fine-tuning count the same places."""
    columns = np.tile(np.array([0.0, 4.0], np.float32), (4, 2))  # every second column
    (found,) = crop_known_depth(columns, np.array([[0, 0, 4, 4, 0]]), (4, 4), 1)
    assert found.tolist() == [[4.0]]
    columns[0] = 0
    (found,) = crop_known_depth(columns, np.array([[0, 0, 4, 4, 0]]), (4, 4), 1)
    assert found.tolist() == [[0.0]]
