"""Labels: every kind comes back from its bytes, bad values and broken bytes are refused by name."""

import io
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fourmill.manifests.errors import SampleError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.labels import (
    Encoding,
    check_label,
    decode_label,
    empty_label,
    encode_label,
)
from fourmill.manifests.modalities import Kind, Modality, modality

SIDES = st.integers(1, 9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab é"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
SHARE = st.floats(0, 1)


def planes(dtype: str, low: int, high: int, *more: int) -> st.SearchStrategy[np.ndarray]:
    values = st.integers(low, high)
    return st.tuples(SIDES, SIDES).flatmap(
        lambda sides: hnp.arrays(dtype, (*sides, *more), elements=values)
    )


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, Any]:
    def instance() -> dict[str, Any]:
        xs, ys = sorted([draw(SHARE), draw(SHARE)]), sorted([draw(SHARE), draw(SHARE)])
        corners = [xs[0], ys[0], xs[1], ys[1]]
        return {"boxes": corners, "class_name": draw(st.text("cat ü", min_size=1)), "score": 1}

    return {"instances": [instance() for _ in range(draw(st.integers(0, 3)))]}


EXACT = {
    "normal": planes("uint8", 64, 191, 3),
    "canny_edge": planes("uint8", 0, 255),
    "semseg_coarse": planes("uint8", 0, 20),
    "truth_instances": planes("uint16", 0, 65_535),
    "vit_s_focus": st.tuples(SIDES, SIDES).map(lambda hw: np.ones((384, *hw), np.float16) / 3),
    "imagenet_features": hnp.arrays("float32", 1280, elements=st.floats(-1, 1, width=32)),
    "t5_caption": st.integers(1, 77).map(lambda n: np.ones((n, 4096), np.float16) / n),
    "caption": st.text(st.characters(exclude_categories=["Cs"])),
    "det": boxes(),
    "metadata": st.lists(JSON, max_size=3) | st.dictionaries(st.text("ab"), JSON, max_size=3),
    "crop_settings": hnp.arrays("int64", (3, 5), elements=st.just(1)),
    "tok_rgb@224": hnp.arrays("int16", (2, 196), elements=st.integers(0, 16_383)),
}
"""What is stored without loss, with values of each."""

PNG_IMAGE = Modality("picture", Kind.IMAGE, "picture", "png", channels=3)


@pytest.mark.parametrize("name", EXACT)
@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_label_comes_back_as_it_was_and_its_bytes_are_always_the_same(name, data):
    label = data.draw(EXACT[name])
    stored = encode_label(modality(name), label)
    back = decode_label(modality(name), stored)
    if isinstance(label, np.ndarray):
        assert isinstance(back, np.ndarray)
        assert back.dtype == label.dtype
        np.testing.assert_array_equal(back, label)
        assert encode_label(modality(name), np.asfortranarray(label)) == stored
    else:
        assert back == label
        assert encode_label(modality(name), back) == stored


def test_every_kind_of_label_is_tried_here():
    others = {Kind.IMAGE, Kind.DEPTH, Kind.PLANE}  # not without loss: below, and test_planes.py
    assert {modality(name).kind for name in EXACT} | others == set(Kind)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 1), st.floats(0, 10), st.lists(SHARE, min_size=1, max_size=9))
def test_depth_comes_back_within_half_a_step_of_its_encoding(scale, offset, shares):
    depth = np.array([[offset + share * 65_535 * scale * 0.999 for share in shares]], np.float32)
    encoding = Encoding(scale, offset)
    stored = encode_label(modality("depth"), depth, encoding)
    back = decode_label(modality("depth"), stored, encoding)
    rounding = 1e-6 * float(depth.max())  # of float32
    assert isinstance(back, np.ndarray)
    assert np.abs(back.astype(np.float64) - depth).max() <= scale / 2 + rounding


def test_depth_outside_of_its_encoding_is_refused_not_clipped():
    with pytest.raises(SampleError, match="found depth 0 to 2, its encoding holds 0 to 1"):
        encode_label(modality("depth"), np.array([[0, 2]], np.float32))


def test_pictures_come_back_exactly_from_png_and_closely_from_jpeg():
    ramp = np.indices((32, 48)).sum(axis=0)[..., None].repeat(3, axis=2).astype(np.uint8)
    np.testing.assert_array_equal(decode_label(PNG_IMAGE, encode_label(PNG_IMAGE, ramp)), ramp)
    jpeg = decode_label(modality("rgb"), encode_label(modality("rgb"), ramp))
    assert isinstance(jpeg, np.ndarray)
    assert np.abs(jpeg.astype(int) - ramp).max() <= 3


def box(corners: list[float], name: str, score: float) -> dict[str, Any]:
    return {"instances": [{"boxes": corners, "class_name": name, "score": score}]}


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("depth", np.array([[0, np.nan]], np.float32), "1 of 2 values are not finite"),
        ("depth", np.array([[-1]], np.float32), "found depth -1, expected none below 0"),
        ("depth", np.zeros((2, 2)), "found float64, expected float32"),
        ("depth", np.zeros((2, 2, 1), np.float32), r"found shape \[2, 2, 1\], expected \[H, W\]"),
        ("normal", np.full((1, 1, 3), 255, np.uint8), "found a vector of length 1.73"),
        ("semseg_coarse", np.array([[21]], np.uint8), "found class 21, expected 0 to 20, or 255"),
        ("vit_s_focus", np.zeros((3, 2, 2), np.float16), r"expected \[384, h, w\]"),
        ("tok_rgb@224", np.full(196, 16_384, np.int16), "found ids 16384 to 16384"),
        ("tok_rgb@224", np.zeros((2, 195), np.int16), "expected \\[196\\] or \\[crops, 196\\]"),
        ("crop_settings", np.array([[0, 0, 0, 5, 0]]), "from 1"),
        ("caption", 7, "found int, expected a string"),
        ("caption", "\ud800", "cannot be stored as UTF-8"),
        ("det", box([0, 0, 2, 1], "cat", 1), "0: box"),
        ("det", box([1, 0, 0, 1], "cat", 1), "x0 <= x1"),
        ("det", box([0, 0, 1, 1], "", 1), "a name"),
        ("det", box([0, 0, 1, 1], "a", True), "score"),
        ("metadata", {"brightness": float("nan")}, "cannot be stored as JSON"),
        ("metadata", "bright", "found str, expected a dict or a list"),
    ],
)  # fmt: skip
def test_what_is_no_label_of_the_modality_is_refused_with_what_was_expected(name, label, message):
    with pytest.raises(SampleError, match=message) as caught:
        encode_label(modality(name), label)
    assert caught.value.stage == name


def test_unknown_classes_and_unknown_normals_are_labels():
    check_label(modality("semseg_coarse"), np.array([[UNKNOWN_CLASS]], np.uint8))
    check_label(modality("normal"), np.full((1, 1, 3), 128, np.uint8))


@pytest.mark.parametrize("name", [*EXACT, "depth", "rgb"])
def test_what_stands_for_a_missing_label_is_small_and_decodes(name):
    empty = empty_label(modality(name))
    decode_label(modality(name), empty)
    assert len(empty) < 1000


@pytest.mark.parametrize("name", [*EXACT, "depth", "rgb"])
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_broken_bytes_are_a_failed_sample_and_nothing_worse(name, data):
    good = bytearray(empty_label(modality(name)))
    for _ in range(data.draw(st.integers(1, 4))):
        if good:
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(good[: data.draw(st.integers(0, len(good)))])
    with suppress(SampleError):
        decode_label(modality(name), broken)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': ((, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -1)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<q9', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**12,)}",
        "[1, 2]",
        "\x00",
        "(" * 9000,
    ],
)
def test_a_broken_npy_header_is_a_failed_sample(header):
    npy = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)
    with pytest.raises(SampleError, match="not readable as vector"):
        decode_label(modality("imagenet_features"), npy)


def test_bytes_are_never_unpickled():
    objects = np.array([{"a": 1}], dtype=object)
    buffer = io.BytesIO()
    np.save(buffer, objects, allow_pickle=True)
    with pytest.raises(SampleError, match="Python objects, which are never read"):
        decode_label(modality("imagenet_features"), buffer.getvalue())


def test_a_deeply_nested_structure_is_refused():
    with pytest.raises(SampleError, match="metadata"):
        decode_label(modality("metadata"), b"[" * 200_000)


def test_structures_are_written_the_same_whatever_the_order_of_their_keys():
    one, other = {"b": 1, "a": [1.5, "é"]}, {"a": [1.5, "é"], "b": 1}
    assert encode_label(modality("metadata"), one) == encode_label(modality("metadata"), other)
    assert json.loads(encode_label(modality("metadata"), one)) == one
