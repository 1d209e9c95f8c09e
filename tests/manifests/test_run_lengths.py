"""Masks that overlap are small text, the one that COCO and SA-1B have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import check_label, decode_label, encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.render import render
from fourmill.manifests.run_lengths import RunLengths, masks_label, read_masks
from fourmill.manifests.summaries import summarise

some_masks = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda size: arrays(bool, (3, *size))
)


def discs() -> list[np.ndarray]:
    """A large disc, a small one on it, and one beside."""
    rows, columns = np.mgrid[:120, :200]
    places = ((60, 70, 50), (50, 60, 15), (60, 160, 30))
    return [np.hypot(rows - row, columns - column) < radius for row, column, radius in places]


@given(some_masks)
@settings(deadline=None)
def test_masks_come_back_from_a_shard_as_they_were(masks: np.ndarray) -> None:
    definition = modality("sam_instance")
    stored = encode_label(definition, masks_label(list(masks)))
    found = read_masks(decode_label(definition, stored))
    np.testing.assert_array_equal([each.mask() for each in found], masks)


def test_the_text_is_that_of_cocos_own_tools() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    noise = [rng.random((40, 50)) < share for share in (0, 0.02, 0.5, 0.98, 1)]
    for mask in [*discs(), *noise]:
        theirs = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        expected = {"size": list(mask.shape), "counts": theirs["counts"].decode()}
        assert RunLengths.of(mask).record() == expected
        np.testing.assert_array_equal(RunLengths.read(expected).mask(), mask)


def test_pixels_are_known_without_painting() -> None:
    mask = discs()[1]
    rows, columns = np.indices(mask.shape).reshape(2, -1)
    np.testing.assert_array_equal(RunLengths.of(mask).holds(rows, columns), mask.ravel())


def test_a_file_of_sa_1b_is_a_label_whatever_else_it_says() -> None:
    (segmentation,) = masks_label(discs()[:1])["annotations"]
    annotation = segmentation | {"bbox": [20, 10, 100, 100], "predicted_iou": 0.97, "id": 7}
    check_label(modality("sam_instance"), {"image": {"width": 200}, "annotations": [annotation]})


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([], 'expected {"annotations"'),
        ({"annotations": [{}]}, "segmentation is None"),
        ({"annotations": [{"segmentation": {"size": [9], "counts": "Q2"}}]}, "expected .*size"),
        (
            {"annotations": [{"segmentation": {"size": [10**5, 10**5], "counts": ""}}]},
            "at most 100,000,000 pixels",
        ),
        *(
            ({"annotations": [{"segmentation": {"size": [9, 9], "counts": text}}]}, "run lengths")
            for text in ("", "0", "o", "\u20ac", "oooooooooo0", "A0A", "!", "a2o1")
        ),
    ],
)
def test_what_is_no_mask_is_refused_with_what_was_expected(label: object, message: str) -> None:
    with pytest.raises(SampleError, match=f"sam_instance: .*{message}"):
        encode_label(modality("sam_instance"), label)


def test_masks_of_several_sizes_are_refused() -> None:
    one, other = (masks_label([each])["annotations"] for each in (discs()[0], discs()[0][:50]))
    label = {"annotations": one + other}
    with pytest.raises(SampleError, match="expected one size"):
        check_label(modality("sam_instance"), label)


def test_masks_are_counted_as_instances_are() -> None:
    labels = [masks_label(discs()), masks_label([])]
    summary = summarise(modality("sam_instance"), labels)
    assert (summary["labels"], summary["empty"]) == (2, 1)
    assert summary["counts"][:3] == [1, 0, 1]  # of none, and of two or three


def test_masks_are_drawn_as_what_can_be_seen_of_them() -> None:
    definition, image = modality("sam_instance"), np.full((120, 200, 3), 90, np.uint8)
    picture = render(definition, masks_label(discs()), 100, image)
    plain = render(definition, masks_label(discs()[:1]), 100, image)
    assert picture.shape == (100, 100, 3)
    differs = (picture != plain).any(axis=-1)
    assert differs[20 + 30, 80]  # the disc beside
    assert not differs[20 + 30, 50]  # what the large one shows alone
    assert render(definition, masks_label([]), 100, image).shape == (100, 100, 3)
