"""Corpora in the forms that people have them."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.pipeline.sources.base import Source
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


def test_webdataset_tars_are_read_and_a_half_written_one_gives_what_is_whole(
    tmp_path, photographs
):
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


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_what_is_not_there_is_told(tmp_path, what):
    Path(tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=what):
        open_source(str(tmp_path / what)).listing()
