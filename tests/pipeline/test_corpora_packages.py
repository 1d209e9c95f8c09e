"""The built-in corpora on the real packages."""

import hashlib
import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourmill.manifests.errors import ConfigError, MissingPackageError, UnknownNameError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import COARSE_CLASSES, modality
from fourmill.manifests.packages import fetch
from fourmill.pipeline.corpora import composites, frames, furniture, gcompris, photos, stamps
from fourmill.pipeline.corpora.registry import open_builtin
from fourmill.pipeline.corpora.scenes import FAR

pytestmark = pytest.mark.packages


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    try:
        for package in (furniture.PACKAGE, *photos.PACKAGES):
            fetch("apt", package)
    except MissingPackageError as error:
        pytest.skip(str(error))


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def test_a_rendered_frame_is_the_same_each_time_and_its_truth_agrees() -> None:
    made = [frames.render_frame(3, 1) for _ in range(2)]
    digests = {hashlib.sha256(each.frame.rgb.tobytes()).hexdigest() for each in made}
    assert len(digests) == 1
    frame = made[0].frame
    assert frame.depth.min() > 0
    assert frame.depth.max() <= FAR
    named = frame.classes[frame.instances > 0]
    structure = [COARSE_CLASSES.index(each) for each in ("wall", "floor", "ceiling", "sky")]
    assert not np.isin(named, structure).any()
    assert made[0].caption.startswith(("a ", "an "))
    assert made[0].credits


def test_no_model_or_cutout_is_both_trained_on_and_held_out() -> None:
    models = furniture.catalogue()
    held_out = [each for each in models if each.is_held_out]
    assert 0.08 < len(held_out) / len(models) < 0.16
    assert {each.klass for each in held_out} >= {
        COARSE_CLASSES.index(each) for each in ("seat", "table", "bed", "storage", "plant")
    }
    names = {each.name for each in held_out} - {
        each.name for each in models if not each.is_held_out
    }
    for index in range(4):
        train = " ".join(frames.render_frame(0, index).credits)
        assert not any(train.startswith(f"{name}:") for name in names)
    assert 0.05 < np.mean([each.is_held_out for each in stamps.stamps()]) < 0.25


def test_rooms_bring_labels_that_are_what_their_modalities_say() -> None:
    source = open_builtin("rooms", count=10, seed=1)
    items = source.listing()
    assert [each.split for each in items].count("val") == 1
    sample = source.read(items[0])
    assert size(sample.image) == (256, 256)
    assert set(sample.labels) == set(source.label_modalities)
    for name, label in sample.labels.items():
        check_label(modality(name), label)


def test_a_composite_says_exactly_which_pixels_are_what() -> None:
    source = open_builtin("composites", count=10)
    sample, again = (source.read(source.listing()[0]) for _ in range(2))
    assert sample.image == again.image
    for name, label in sample.labels.items():
        check_label(modality(name), label)
    made = composites.compose(0, 0)
    boxes = composites.boxes(made.instances, [each.spoken for each in made.stamps])["instances"]
    assert len(boxes) == len(made.stamps) >= 1
    for number, each in enumerate(boxes, start=1):
        x0, y0, x1, y1 = (round(256 * edge) for edge in each["boxes"])
        inside = made.instances[y0:y1, x0:x1] == number
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        assert inside.sum() == (made.instances == number).sum()
    classes = sample.labels["truth_semseg_coarse"]
    assert isinstance(classes, np.ndarray)
    assert ((classes == composites.UNKNOWN) == (made.instances == 0)).all()


def test_held_out_composites_are_made_of_held_out_pictures() -> None:
    for split, held_out in (("train", False), ("val", True)):
        made = [composites.compose(0, index, split) for index in range(5)]
        assert {each.background.is_held_out for each in made} == {held_out}
        assert {stamp.is_held_out for each in made for stamp in each.stamps} == {held_out}


def test_there_are_hundreds_of_photographs_with_text_creator_and_licence() -> None:
    source = open_builtin("photos")
    items = source.listing()
    assert len(items) > 400
    assert len({each.name for each in items}) == len(items)
    assert 0.05 < np.mean([each.split == "val" for each in items]) < 0.2
    for item in items[::25]:
        sample = source.read(item)
        assert min(size(sample.image)) >= 100
        assert sample.caption
        assert len(sample.caption) > 4
        assert sample.source["creator"]
        assert sample.source["licence"]


def test_a_count_takes_photographs_of_all_kinds_and_keeps_their_split() -> None:
    everything = {each.name: each.split for each in open_builtin("photos").listing()}
    some = open_builtin("photos", count=60).listing()
    assert len(some) == 60
    assert all(everything[each.name] == each.split for each in some)
    assert len({each.name.split("/")[0] for each in some}) >= 3


def test_photographs_are_handed_out_as_the_package_has_them() -> None:
    photo = next(each for each in gcompris.photos() if each.archive == "erase")
    sample = open_builtin("photos").read(
        next(each for each in open_builtin("photos").listing() if each.name.endswith(photo.name))
    )
    assert sample.image == gcompris.read_photo(photo)
    assert sample.image[:4] == b"RIFF"


def test_without_apt_photos_are_those_that_pip_carries_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    photos.photos.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            source = open_builtin("photos")
            names = {each.name.split("/")[0] for each in source.listing()}
        assert names == {"skimage", "sklearn", "matplotlib"}
        assert "gcompris-qt-data" in caplog.text
        assert source.params["missing"] == list(photos.PACKAGES)
    finally:
        photos.photos.cache_clear()


def test_unknown_corpora_and_options_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'composites'"):
        open_builtin("composits")
    with pytest.raises(UnknownNameError, match=r"option of builtin:photos called 'seed'.*count"):
        open_builtin("photos", seed=1)
    with pytest.raises(ConfigError, match="at least 1"):
        open_builtin("rooms", count=0)
