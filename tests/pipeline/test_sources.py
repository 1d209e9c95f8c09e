"""Corpora in the forms that people have them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.manifests.modalities import Kind, Modality, modality
from fourmill.pipeline.ingest import source_names
from fourmill.pipeline.sources.base import Source, read_all
from fourmill.pipeline.sources.registry import open_source

JSON_LINES = """
{"image": "a.jpg", "text": "a cat"}
{"image": "b.jpg", "text": "a cup"}
"""


def _jpeg(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def _read_all(source: Source) -> dict[str, str | None]:
    return {each.name: source.read(each).caption for each in source.listing()}


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("captions.csv", "file_name,caption\na.jpg,a cat\nb.jpg,a cup\n"),
        ("captions.json", json.dumps({"a.jpg": "a cat", "b.jpg": "a cup"})),
        ("captions.jsonl", JSON_LINES),
    ],
)  # fmt: skip
def test_captions_of_a_folder_come_from_one_table(tmp_path, photographs, table, text):
    for name, photo in (("a", "chelsea"), ("b", "coffee")):
        (tmp_path / f"{name}.jpg").write_bytes(_jpeg(photographs[photo]))
    (tmp_path / table).write_text(text)
    assert _read_all(open_source(str(tmp_path))) == {"a.jpg": "a cat", "b.jpg": "a cup"}


def test_a_caption_beside_the_image_wins_over_a_table(tmp_path, photographs):
    (tmp_path / "a.jpg").write_bytes(_jpeg(photographs["chelsea"]))
    (tmp_path / "a.txt").write_text("  beside\nit ")
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,in the table\n")
    assert _read_all(open_source(str(tmp_path))) == {"a.jpg": "beside it"}


def test_webdataset_tars_are_read_and_a_half_written_one_gives_what_is_whole(tmp_path, photographs):
    image = _jpeg(photographs["coffee"])
    path = tmp_path / "shard-0.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            for extension, data in (("jpg", image), ("txt", f"cup {number}".encode())):
                member = tarfile.TarInfo(f"{number:04d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    source = open_source(str(tmp_path))
    assert isinstance(source, Source)
    assert list(_read_all(source).values()) == ["cup 0", "cup 1", "cup 2"]
    path.write_bytes(path.read_bytes()[: 2 * (len(image) + 3000)])
    captions, broken = [], 0
    for item in open_source(str(path)).listing():
        try:
            captions.append(open_source(str(path)).read(item).caption)
        except SampleError:
            broken += 1
    assert captions[:1] == ["cup 0"]
    assert len(captions) + broken in (2, 3, 4)


def test_parquet_with_image_bytes_is_read(tmp_path, photographs):
    image = _jpeg(photographs["chelsea"])
    rows = {"image": [{"bytes": image, "path": "c.jpg"}], "text": ["a cat"]}
    pq.write_table(pa.table(rows), tmp_path / "part.parquet")
    source = open_source(str(tmp_path / "part.parquet"))
    (item,) = source.listing()
    sample = source.read(item)
    assert (sample.image, sample.caption) == (image, "a cat")


def test_parquet_of_dataset_hubs_brings_its_splits_and_reads_each_row_group_once(
    tmp_path, photographs, monkeypatch
):
    image = _jpeg(photographs["chelsea"].resize((60, 40)))
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        rows = {
            "image": [{"bytes": image, "path": f"{n}.jpg"} for n in range(6)],
            "captions": [[f"cat {n}", "a cat"] for n in range(6)],
            "license": ["CC0"] * 6,
        }
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet", row_group_size=2)
    source = open_source(str(tmp_path))
    items = source.listing()
    assert [each.split for each in items] == ["train"] * 6 + ["val"] * 6
    assert len({each.group for each in items}) == 6
    opened = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, n: opened.append(n) or real(self, n)
    )
    readings = read_all(source, items[::-1])
    assert [each.caption for each in readings] == [f"cat {n}" for n in (5, 4, 3, 2, 1, 0)] * 2
    assert {each.source["licence"] for each in readings} == {"CC0"}
    assert len(opened) == 6


def test_the_output_of_img2dataset_is_read_by_the_list_that_it_left(tmp_path, photographs):
    image = _jpeg(photographs["coffee"].resize((60, 40)))
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number in (0, 2):
            record = {"url": f"http://x.org/{number}.jpg", "key": f"{number:09d}", "caption": "no",
                      "status": "success", "similarity": 0.5, "license": "CC-BY-4.0"}  # fmt: skip
            for extension, data in (
                ("jpg", image), ("txt", f"cup {number}".encode()),
                ("json", json.dumps(record).encode()),
            ):  # fmt: skip
                member = tarfile.TarInfo(f"{number:09d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    keys = [f"{number:09d}" for number in range(4)]
    status = ["success", "failed_to_download", "success", "success"]  # the last is not in the tar
    table = {"url": ["http://x.org"] * 4, "key": keys, "status": status}
    pq.write_table(pa.table(table), tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text("{}")
    source = open_source(str(tmp_path))
    items = source.listing()
    assert [each.name for each in items] == [f"00000/{number:09d}" for number in (0, 2, 3)]
    first, second, missing = read_all(source, items)
    assert [first.caption, second.caption] == ["cup 0", "cup 2"]
    assert first.source == {
        "file": "00000/000000000", "dataset": "webdataset", "url": "http://x.org/0.jpg",
        "licence": "CC-BY-4.0", "similarity": "0.5",
    }  # fmt: skip
    assert "the tar does not hold it" in missing.reason


def test_a_json_beside_the_image_names_its_origin(tmp_path, photographs):
    (tmp_path / "a.jpg").write_bytes(_jpeg(photographs["coffee"].resize((60, 40))))
    record = {"caption": "a cup", "url": "http://x.org/a.jpg", "author": "Ann", "license": "CC0"}
    (tmp_path / "a.json").write_text(json.dumps(record))
    source = open_source(str(tmp_path))
    sample = source.read(source.listing()[0])
    assert sample.caption == "a cup"
    assert sample.source == {
        "file": "a.jpg", "dataset": "folder", "url": "http://x.org/a.jpg", "creator": "Ann",
        "licence": "CC0",
    }  # fmt: skip


def test_files_of_one_name_in_two_folders_stay_two_samples(tmp_path, photographs):
    image = _jpeg(photographs["chelsea"].resize((60, 40)))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        rows = {"image": [image], "text": [folder]}
        pq.write_table(pa.table(rows), tmp_path / folder / "part.parquet")
    below, both = (
        open_source(str(tmp_path / "*" / "*.parquet")),
        [open_source(str(tmp_path / folder)) for folder in ("one", "two")],
    )
    assert [each.name for each in below.listing()] == ["one/part/000000000", "two/part/000000000"]
    assert source_names(both) == ["parquet", "parquet-2"]


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_what_is_not_there_is_told(tmp_path, what):
    Path(tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=what):
        open_source(str(tmp_path / what)).listing()


def test_labels_beside_pictures_are_read_from_folders_and_tars_alike(tmp_path, photographs):
    heat = Modality("heat", Kind.PLANE, "heat", "png", channels=1, value_range=(0.0, 255.0))
    folder = tmp_path / "folder"
    folder.mkdir()
    grey = photographs["coffee"].convert("L")
    for name, suffix in (("a.b", "jpg"), ("scan", "tiff")):  # a suffix that shards do not hold
        photographs["coffee"].save(folder / f"{name}.{suffix}")
        grey.save(folder / f"{name}.heat.png")
    photographs["coffee"].save(folder / "alone.jpg")
    (folder / "alone.grounding.json").write_text("{")  # no table of captions
    source = open_source(str(folder), labels=[heat, modality("grounding")])
    assert source.label_modalities == ["heat", "grounding"]
    read = {each.name: source.read(each) for each in source.listing()}
    assert set(read) == {"a.b.jpg", "scan.tiff", "alone.jpg"}
    np.testing.assert_array_equal(read["a.b.jpg"].labels["heat"], np.asarray(grey))
    np.testing.assert_array_equal(read["scan.tiff"].labels["heat"], np.asarray(grey))
    assert list(read["alone.jpg"].labels) == ["grounding"]
    assert isinstance(read["alone.jpg"].labels["grounding"], SampleError)
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        tar.add(folder / "a.b.jpg", "c.jpg")
        tar.add(folder / "a.b.heat.png", "c.heat.png")
    packed = open_source(str(tmp_path / "one.tar"), labels=[heat])
    (item,) = packed.listing()
    np.testing.assert_array_equal(packed.read(item).labels["heat"], np.asarray(grey))
    assert packed.params != open_source(str(tmp_path / "one.tar")).params
