"""Lists of URLs become datasets: what came, what did not, and nothing downloaded twice."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.pipeline.picture_server import PictureServer, picture_server

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SourceError
from fourmill.pipeline.cli import main
from fourmill.pipeline.config import CorpusConfig, DownloadConfig, FilterConfig
from fourmill.pipeline.ingest import ingest
from fourmill.pipeline.run import plan_corpus
from fourmill.pipeline.sources import lists
from fourmill.pipeline.sources.registry import open_source
from fourmill.pipeline.sources.urls import UrlListSource

pytestmark = pytest.mark.ray

DOWNLOAD = DownloadConfig(
    allow=("127.0.0.1",), timeout_seconds=5, retries=1, backoff_seconds=0.01, per_host=8
)


@pytest.fixture
def server(photographs: dict[str, Image.Image]) -> Iterator[PictureServer]:
    pictures = {}
    for name, photo in photographs.items():
        small = photo.resize((160, 120))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG")
        pictures[name] = buffer.getvalue()
    pictures["a"] = pictures["chelsea"]
    with picture_server(pictures) as running:
        yield running


@pytest.fixture
def cc12m(server: PictureServer, tmp_path: Path) -> Path:
    """Rows as CC12M has them: URL, tab, caption; no header."""
    rows = [(f"file/{name}", f"a picture of {name}") for name in sorted(server.pictures)[1:]]
    rows += [("gone/x.jpg", "not there"), ("html/x.jpg", "a page"), ("robots/noai", "reserved")]
    rows += [("redirect/http://10.0.0.1/x.jpg", "inside"), ("file/coffee?again", "kept twice")]
    server.pictures["coffee?again"] = server.pictures["coffee"]
    path = tmp_path / "cc12m.tsv"
    path.write_text("".join(f"{server.url}/{where}\t{text}\n" for where, text in rows))
    return path


def _ingest(list_: Path, root: Path, **settings) -> Dataset:
    config = CorpusConfig(sources=(str(list_),), samples_per_shard=3, **settings)
    dataset = Dataset.open(str(root), create=True)
    plan = plan_corpus(config, str(root))
    ingest(dataset, plan, on_progress=lambda done, failed: None)
    return dataset


def test_a_tsv_becomes_a_dataset_and_what_did_not_come_is_listed(cluster, server, cc12m, tmp_path):
    dataset = _ingest(cc12m, tmp_path / "root", download=DOWNLOAD)
    captions = {each["caption"] for each in dataset.samples(["caption"])}
    assert captions == {f"a picture of {name}" for name in
                        ("astronaut", "chelsea", "coffee", "rocket")} | {"kept twice"}  # fmt: skip
    reasons = {each.message.partition(": ")[2]: each.stage for each in dataset.failures("rgb")}
    assert reasons["HTTP status 404"] == "download"
    assert reasons["10.0.0.1 is not an address of the public internet"] == "download"
    assert reasons["the server opts out: X-Robots-Tag: noai"] == "download"
    assert any(each.stage == "decode" for each in dataset.failures("rgb"))  # the page
    sources = [each["source"] for each in dataset.samples(["source"])]
    assert all(each["url"].startswith(server.url) and each["sha256"] for each in sources)
    assert dataset.verify(deep=True) == []


def test_a_second_run_downloads_nothing_and_gives_the_same_bytes(cluster, server, cc12m, tmp_path):
    kept = DOWNLOAD.model_copy(update={"keep": str(tmp_path / "kept")})
    one = _ingest(cc12m, tmp_path / "one", download=kept)
    asked = server.requests.total()
    two = _ingest(cc12m, tmp_path / "two", download=kept)
    assert server.requests.total() == asked
    assert two.head.id == one.head.id
    small = _ingest(cc12m, tmp_path / "small", download=kept, max_side=80)
    assert server.requests.total() == asked
    assert {max(each["rgb"].shape) for each in small.samples(["rgb"])} == {80}
    assert {each["source"]["original_size"] for each in small.samples(["source"])} == {"160x120"}


def test_a_list_that_changed_is_another_corpus(cluster, server, cc12m, tmp_path):
    _ingest(cc12m, tmp_path / "root", download=DOWNLOAD)
    cc12m.write_text(cc12m.read_text().replace("a picture", "a photograph"))
    with pytest.raises(ConfigError, match="already holds another dataset"):
        _ingest(cc12m, tmp_path / "root", download=DOWNLOAD)


def test_scores_and_sizes_of_a_list_are_judged_before_anything_is_fetched(
    cluster, server, tmp_path
):
    """Columns as COYO has them."""
    names = ["astronaut", "chelsea", "coffee", "rocket"]
    table = {
        "id": list(range(4)),
        "url": [f"{server.url}/file/{name}" for name in names],
        "text": names,
        "width": [1200, 1200, 1200, 100],
        "height": [800, 800, 800, 100],
        "clip_similarity_vitl14": [0.3, 0.1, 0.3, 0.3],
        "watermark_score": [0.1, 0.1, 0.9, 0.1],
    }
    pq.write_table(pa.table(table), tmp_path / "coyo.parquet", row_group_size=3)
    filters = FilterConfig(
        min_side=110, min_scores={"clip_similarity_vitl14": 0.2},
        max_scores={"watermark_score": 0.5},
    )  # fmt: skip
    dataset = _ingest(
        tmp_path / "coyo.parquet", tmp_path / "root", download=DOWNLOAD, filters=filters
    )
    assert dict(server.requests) == {"/file/astronaut": 1}
    (sample,) = dataset.samples(["caption", "source"])
    assert sample["caption"] == "astronaut"
    assert sample["source"]["clip_similarity_vitl14"] == "0.3"
    reasons = sorted(each.message.partition(": ")[2] for each in dataset.failures("rgb"))
    assert reasons == [
        "100 x 100 pixels, the short side has less than 110",
        "clip_similarity_vitl14 is 0.1, less than 0.2",
        "watermark_score is 0.9, more than 0.5",
    ]
    assert {each.stage for each in dataset.failures("rgb")} == {"filter"}


def test_the_command_tells_what_came_and_what_was_left_out(cluster, cc12m, tmp_path, capsys):
    words = [
        "ingest", str(cc12m), str(tmp_path / "root"), "--download.allow", "127.0.0.0/8",
        "--download.retries", "0", "--filters.duplicates", "0", "--licence", "CC0-1.0",
    ]  # fmt: skip
    assert main(words) == 0
    assert "4 samples, 4 unreadable, 1 left out by filters" in capsys.readouterr().err
    sources = [each["source"] for each in Dataset.open(str(tmp_path / "root")).samples(["source"])]
    assert {each["licence"] for each in sources} == {"CC0-1.0"}


@pytest.mark.parametrize(
    ("name", "text", "caption"),
    [
        ("a.tsv", "http://x.org/1.jpg\ta cat\n", "a cat"),
        ("a.tsv", "a cat\thttp://x.org/1.jpg\n", "a cat"),  # CC3M's order
        ("a.tsv", "caption\turl\na cat\thttp://x.org/1.jpg\n", "a cat"),
        ("a.csv", 'url,caption\nhttp://x.org/1.jpg,"a cat, a dog"\n', "a cat, a dog"),
        ("a.csv", "\ufeffURL,TEXT\r\nhttp://x.org/1.jpg,a cat\r\n", "a cat"),
        ("a.csv", "http://x.org/1.jpg\n", None),
    ],
)
def test_lists_are_read_with_and_without_a_header(tmp_path, name, text, caption):
    from fourmill.pipeline.sources.origin import caption_of

    (tmp_path / name).write_text(text)
    source = open_source(str(tmp_path / name))
    assert isinstance(source, UrlListSource)
    (item,) = source.listing()
    row = source._row(item)
    assert (row["url" if "url" in row else "URL"], caption_of(row)) == (
        "http://x.org/1.jpg", caption,
    )  # fmt: skip


def test_long_lists_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "BLOCK_LINES", 4)
    lines = [f"http://x.org/{number}.jpg\tNr. {number} ä" for number in range(10)]
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    source = open_source(str(tmp_path / "*.tsv"))
    assert isinstance(source, UrlListSource)
    items = source.listing()
    assert [source._row(each)["caption"] for each in items] == [f"Nr. {n} ä" for n in range(10)]
    assert [each.group for each in items][3:5] == ["a#0", "a#1"]


def test_a_list_without_urls_says_so(tmp_path):
    (tmp_path / "a.tsv").write_text("one\ttwo\n")
    with pytest.raises(SourceError, match="neither a URL nor the name"):
        open_source(str(tmp_path / "a.tsv")).listing()
