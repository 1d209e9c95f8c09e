"""What others read: every version through `webdataset` alone, and the reference loader's layout."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from tests.manifests.conftest import KEYS, tokens_of

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer

ROOT = Path(__file__).parents[2]
PICTURE = data.chelsea()[:48, :64]

WEBDATASET_ONLY = """
import sys
import webdataset

for url in sys.argv[1:]:
    for sample in webdataset.WebDataset(url, shardshuffle=False):
        extensions = [name for name in sample if not name.startswith("__")]
        assert len(extensions) == 1, extensions
        print(url, sample["__key__"], extensions[0])
"""

LABELS = {
    "depth": np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64),
    "normal": np.full((48, 64, 3), (128, 128, 255), np.uint8),
    "semseg_coarse": np.full((48, 64), 14, np.uint8),
    "det": {"instances": [{"boxes": [0, 0, 1, 1], "class_name": "cat", "score": 0.9}]},
    "vit_s_focus": np.ones((384, 3, 4), np.float16),
    "source": {"file": "chelsea.png", "licence": "CC0"},
}


@pytest.fixture
def whole(make_dataset, tmp_path) -> Dataset:
    """The usual twelve samples, with pictures in two formats and labels of every storage kind."""
    dataset: Dataset = make_dataset(str(tmp_path / "whole"))
    labels = {name: encode_label(modality(name), label) for name, label in LABELS.items()}
    entries = []
    for name in ("rgb", *labels):
        writer = dataset.writer(modality(name), Producer(name="t", version="1"), {}, 3)
        for shard, keys in enumerate(KEYS):
            if name == "rgb":
                payloads, extensions = zip(*map(picture, range(4)), strict=True)
                writer.commit(shard, keys, payloads=payloads, extensions=extensions)
            else:
                writer.commit(shard, keys, payloads=[labels[name]] * 4)
        entries.append(writer.finish())
    writer = dataset.writer(modality("crop_settings"), Producer(name="t", version="1"), {}, 3)
    for shard, keys in enumerate(KEYS):
        writer.commit(shard, keys, array=np.tile(np.array([0, 8, 48, 48, 0]), (4, 2, 1)))
    dataset.publish([*entries, writer.finish()], "everything")
    return dataset


def picture(row: int) -> tuple[bytes, str]:
    name, extension = [("JPEG", "jpg"), ("PNG", "png")][row % 2]
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, name)
    return buffer.getvalue(), extension


def python(code: str, *arguments: str) -> str:
    """What a program prints that knows nothing of fourmill."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_webdataset_alone_reads_every_version_in_the_same_order(whole, tmp_path):
    keys = [key for shard in KEYS for key in shard]
    urls = {
        f"{tmp_path}/whole/{entry.folder}/shard-{{000000..000002}}.tar": entry.definition
        for entry in whole.modalities.values()
    }
    assert len(urls) == 10
    rows = [line.split() for line in python(WEBDATASET_ONLY, *urls).splitlines()]
    for url, definition in urls.items():
        assert [key for place, key, _ in rows if place == url] == keys
        allowed = {"jpg", "png"} if definition.name == "rgb" else {definition.extension}
        assert {extension for place, _, extension in rows if place == url} == allowed


def test_the_reference_layout_gives_aligned_samples(whole, tmp_path):
    # the reference's own notation: ROOT/[rgb,caption,tok_rgb@224]/shard-{000000..000002}.tar
    code = """
import itertools, sys
import webdataset

folders, shards = sys.argv[1].split("[")[1].split("]")
root = sys.argv[1].split("[")[0]
readers = [
    iter(webdataset.WebDataset(f"{root}{folder}{shards}", shardshuffle=False).decode("rgb8"))
    for folder in folders.split(",")
]
for samples in itertools.zip_longest(*readers):
    (key,) = {sample.pop("__key__") for sample in samples}
    values = [value for sample in samples for name, value in sample.items() if name[0] != "_"]
    print(key, values[0].shape, repr(values[1]), values[2].dtype, int(values[2].sum()))
"""
    url = f"{tmp_path}/whole/[rgb,caption,tok_rgb@224]/shard-{{000000..000002}}.tar"
    lines = python(code, url).splitlines()
    expected = [
        f"{key} (48, 64, 3) {'' if row == 3 else f'a cat {row}'!r} int16 "
        f"{int(tokens_of(shard)[row].sum())}"
        for shard, keys in enumerate(KEYS)
        for row, key in enumerate(keys)
    ]
    assert lines == expected


def test_the_reader_on_the_format_page_works_as_it_is_printed(whole, tmp_path):
    page = (ROOT / "docs" / "shard-format.md").read_text()
    code = page.split("<!-- webdataset-only -->\n```python\n")[1].split("```")[0]
    assert "fourmill" not in code.replace("# fourmill", "")
    found = json.loads(python(code, str(tmp_path / "whole")))
    assert found == {
        name: [key for shard in KEYS for key in shard] for name in sorted(whole.modalities)
    }


def test_the_array_reader_on_the_format_page_works_as_it_is_printed(whole, tmp_path):
    page = (ROOT / "docs" / "shard-format.md").read_text()
    code = page.split("<!-- arrays -->\n```python\n")[1].split("```")[0]
    assert "fourmill" not in code
    found = python(code, str(tmp_path / "whole" / "tok_rgb@224"))
    expected = [f"{tokens_of(shard).shape} {int(tokens_of(shard).sum())}" for shard in range(3)]
    assert found.splitlines() == expected
