"""Whatever a folder holds, the good pictures come in aligned and the others are listed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pipeline.conftest import png_bomb

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import image_size
from fourmill.pipeline.ingest import ingest, make_key, plan_ingest
from fourmill.pipeline.sources.folder import FolderSource

pytestmark = pytest.mark.ray


@pytest.fixture
def wild_folder(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    folder = tmp_path / "wild"
    (folder / "more").mkdir(parents=True)
    cat, cup = photographs["chelsea"], photographs["coffee"]
    cat.save(folder / "good.jpg")
    (folder / "good.txt").write_text("a cat")
    cup.save(folder / "more" / "good.jpg")
    (folder / "more" / "good.txt").write_text("a cup")
    cat.save(folder / "Über den Wölken (1).jpg")
    (folder / "Über den Wölken (1).txt").write_text("eine Katze 猫")
    cup.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    cup.save(folder / "rotated.jpg", exif=exif)
    cup.convert("P").save(folder / "palette.png")
    cup.resize((60, 40)).save(folder / "old.bmp")
    cat.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:9000])
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_bomb())
    (folder / "notes.md").write_text("not looked at")
    return folder


@pytest.fixture
def wild(cluster: None, wild_folder: Path, tmp_path: Path) -> Dataset:
    plan = plan_ingest([FolderSource(str(wild_folder))], samples_per_shard=4, held_out=0.2)
    dataset = Dataset.open(str(tmp_path / "root"), create=True)
    ingest(dataset, plan, on_progress=lambda done, failed: None)
    return dataset


def test_unreadable_files_are_listed_with_their_reasons_and_the_rest_comes_in(wild):
    failed = {each.key: each.message for each in wild.failures("rgb")}
    assert set(failed) == {"truncated.jpg", "text.jpg", "empty.png", "huge.png"}
    assert "pixels" in failed["huge.png"]
    assert "b'this is '" in failed["text.jpg"]
    assert wild.modalities["rgb"].samples == 8
    assert wild.verify(deep=True) == []


def test_two_files_of_one_name_stay_two_samples_with_their_own_captions(wild):
    captions = {
        each["source"]["file"]: each["caption"] for each in wild.samples(["source", "caption"])
    }
    assert captions["good.jpg"] == "a cat"
    assert captions["more/good.jpg"] == "a cup"
    assert captions["Über den Wölken (1).jpg"] == "eine Katze 猫"


def test_a_missing_caption_is_marked_and_recorded(wild):
    without = [each["key"] for each in wild.samples(["caption"]) if each["caption"] is None]
    assert without
    assert {each.key for each in wild.failures("caption")} == set(without)


def test_pictures_of_any_mode_decode_upright_as_rgb(wild):
    images = {each["source"]["file"]: each["rgb"] for each in wild.samples(["source", "rgb"])}
    assert all(each.dtype == np.uint8 and each.shape[2] == 3 for each in images.values())
    height, width = images["cmyk.jpg"].shape[:2]
    assert images["rotated.jpg"].shape[:2] == (width, height)


def test_jpegs_are_kept_byte_for_byte(wild, wild_folder):
    stored = {each["source"]: each["rgb"] for each in wild.samples(["source", "rgb"], decode=False)}
    original = (wild_folder / "rotated.jpg").read_bytes()
    assert original in stored.values()
    assert image_size(original)[0] > image_size(original)[1]


def test_a_root_that_holds_another_dataset_is_refused(wild, photo_folder):
    other = plan_ingest([FolderSource(str(photo_folder))], samples_per_shard=4)
    with pytest.raises(ConfigError, match="already holds another dataset"):
        ingest(wild, other, on_progress=lambda done, failed: None)


def test_the_same_folder_gives_the_same_bytes_and_a_larger_one_keeps_its_split(
    make_root, photo_folder
):
    one, two = make_root("one"), make_root("two")
    digests = [each.modalities["rgb"].content_sha256 for each in (one, two)]
    assert digests[0] == digests[1]
    held_out = {each["key"] for each in one.samples(["caption"], "val")}
    Image.new("RGB", (50, 50), "red").save(photo_folder / "new.jpg")
    grown = make_root("grown")
    assert held_out <= {each["key"] for each in grown.samples(["caption"], "val")}


def test_keys_are_safe_readable_and_different_for_different_names():
    names = ["a b.jpg", "a-b.jpg", "x/a b.jpg", "ä.jpg", "../../etc/passwd", "." * 50, "写真.jpg"]
    keys = [make_key(each) for each in names]
    assert len(set(keys)) == len(keys)
    assert all(each.replace("-", "").replace("_", "").isalnum() for each in keys)
    assert keys[0].startswith("a-b-")
