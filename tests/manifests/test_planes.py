"""Planes of numbers with a range: how they are stored, checked, compared; and that modalities
without a range are written as they always were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourmill.manifests.agreement import compare
from fourmill.manifests.differing import difference_map
from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import check_label, decode_label, empty_label, encode_label
from fourmill.manifests.modalities import Kind, Modality, modality
from fourmill.manifests.snapshots import Lineage, Producer, Snapshot, VersionEntry


def plane(low: float, high: float, unit: str = "") -> Modality:
    return Modality(
        "heat", Kind.PLANE, "heat", "png", channels=1, value_range=(low, high), unit=unit
    )


THERMAL = plane(-40.0, 150.0, "°C")


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.lists(st.floats(0, 1), min_size=1, max_size=9),
)
def test_numbers_come_back_within_half_a_step_and_inside_the_range(low, width, shares):
    high = low + width
    numbers = np.array([[low + width * each for each in shares] + [low, high]], np.float32)
    heat = plane(low, high)
    back = decode_label(heat, encode_label(heat, numbers))
    check_label(heat, back)
    assert isinstance(back, np.ndarray)
    assert back.dtype == np.float32
    rounding = 2e-7 * max(abs(low), abs(high))  # of float32
    assert np.abs(back.astype(float) - numbers).max() <= 0.5 * width / 65535 + rounding


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.array([[20, 150.1]], np.float32), "found 20 to 150.1 °C, expected -40 to 150 °C"),
        (np.array([[-41, 0]], np.float32), "found -41 to 0 °C, expected -40 to 150 °C"),
        (np.array([[0, np.nan, np.inf]], np.float32), "2 of 3 values are not finite"),
        (np.zeros((2, 2)), "found float64, expected float32"),
        (np.zeros((2, 2, 1), np.float32), r"found shape \[2, 2, 1\], expected \[H, W\]"),
    ],
)
def test_other_numbers_are_refused_with_what_was_expected(numbers, message):
    with pytest.raises(SampleError, match=message) as caught:
        encode_label(THERMAL, numbers)
    assert caught.value.stage == "heat"


def test_what_stands_for_a_missing_plane_decodes():
    empty = empty_label(THERMAL)
    np.testing.assert_array_equal(decode_label(THERMAL, empty), np.full((1, 1), -40, np.float32))


def test_two_planes_are_compared_in_their_unit_and_their_range():
    one = np.linspace(0, 100, 40, dtype=np.float32).reshape(5, 8)
    near, far = one + 2, one.copy()
    far[:, 4:] += 20
    found = compare(THERMAL, one, THERMAL, near).measures
    assert found["within_5_percent"] == 1
    assert found["correlation"] == pytest.approx(1)
    assert found["abs_error"] == pytest.approx(2, abs=1e-4)
    assert compare(THERMAL, one, THERMAL, far).measures["within_5_percent"] == 0.5
    where = difference_map(THERMAL, one, THERMAL, far)
    assert where[:, :4].max() < 0.01 < 0.1 < where[:, 4:].min()
    with pytest.raises(ConfigError, match="only numbers of one unit"):
        compare(THERMAL, one, plane(0.0, 500.0, "K"), near)


@pytest.mark.parametrize(
    ("kind", "value_range"),
    [
        (Kind.PLANE, None),
        (Kind.PLANE, (1.0, 1.0)),
        (Kind.PLANE, (0.0, float("nan"))),
        (Kind.DEPTH, (0.0, 1.0)),
    ],
)
def test_planes_have_a_range_and_nothing_else_has_one(kind, value_range):
    with pytest.raises(ConfigError, match=r"heat: found .*range"):
        Modality("heat", kind, "heat", "png", channels=1, value_range=value_range)


def _lineage(definition: Modality) -> Lineage:
    return Lineage(
        modality=definition.name, definition=definition, producer=Producer(name="x", version="1"),
        sources={}, shards=2,
    )  # fmt: skip


def test_a_plane_comes_back_from_a_manifest():
    entry = VersionEntry(
        **dict(_lineage(THERMAL)), folder="heat", samples=1, failed=0, bytes=9, content_sha256="a"
    )
    snapshot = Snapshot(modalities={"heat": entry})
    back = Snapshot.from_bytes(snapshot.to_bytes(), "here")
    assert back.modalities["heat"].definition == THERMAL
    assert back.id == snapshot.id


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("depth", "55bbae7c9ae524d73c1fa4a2e191d60135dc215030daf9b57133c2c5cbe29457"),
        ("semseg_coarse", "6432298fa73bd9b9cedec77c346ff8943344fd2551faa76331dbc645eee8dbff"),
        ("tok_rgb@224", "14864fdd540901c3f1753978b475bb89cb99d0c71bfef67870356b6ced105fec"),
    ],
)
def test_versions_from_before_there_were_planes_keep_their_identity(name, identity):
    assert _lineage(modality(name)).identity == identity
