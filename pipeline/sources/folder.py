"""A folder of images, with captions beside them or in one table."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import fsspec

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.manifests.modalities import Modality
from fourmill.pipeline.sources.base import Item, RawSample, Reading, read_alone
from fourmill.pipeline.sources.beside import endings, read_labels
from fourmill.pipeline.sources.origin import CAPTION_COLUMNS, caption_of, origin_of

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SIDECARS = (".txt", ".caption", ".json")
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
NAME_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "name")
_TOGETHER = 32  # items whose files are fetched at once


@dataclass(frozen=True)
class FolderSource:
    """All images below a folder (any fsspec URL), in subfolders too.

    The caption of `a/b.jpg` is, in this order, the text of `a/b.txt` (or `a/b.caption`), the
    caption in `a/b.json`, which may name URL, licence and creator as well, or its row in a table at
    the top of the folder: CSV, TSV, JSON or JSON lines with a column of file names (`file_name`,
    `image`, …) and one of captions (`caption`, `text`, …), or a JSON object from file name to
    caption.

    Attributes:
        labels: modalities whose labels lie beside the pictures, see `beside`.
    """

    path: str
    labels: Sequence[Modality] = ()
    name: str = "folder"

    @property
    def params(self) -> Mapping[str, Any]:
        """The folder itself; what is in it enters the lineage through the listing."""
        labels = {"labels": list(self.label_modalities)} if self.labels else {}
        return {"path": self.path, **labels}

    @property
    def label_modalities(self) -> Sequence[str]:
        """Those whose labels lie beside the pictures."""
        return [each.name for each in self.labels]

    def listing(self) -> list[Item]:
        """One item an image file, by relative path."""
        fs, root = fsspec.core.url_to_fs(self.path)
        if not fs.isdir(root):
            raise SourceError(f"{self.path}: no such folder")
        files = sorted(str(each) for each in fs.find(root))
        names = {_relative(each, root): each for each in files}
        label_endings = [ending for each in self.labels for ending in endings(each)]
        others = {n: file for n, file in names.items() if not n.endswith(tuple(label_endings))}
        table = self._caption_table(fs, others)
        items = []
        for name, file in others.items():
            path = PurePosixPath(name)
            if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
                continue
            beside = [names.get(str(path.with_suffix(each))) for each in SIDECARS]
            caption = table.get(name, table.get(path.name))
            stem = str(path.with_suffix(""))
            labels = {each: names[stem + each] for each in label_endings if stem + each in names}
            where = (file, [each for each in beside if each], caption, labels)
            items.append(Item(name, where=where))
        if not items:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"{self.path}: no image in it or below it (looked for {suffixes})")
        return items

    def read(self, item: Item) -> RawSample:
        """The image's bytes as they are, and its caption if there is one."""
        return read_alone(self, item)

    def read_many(self, items: Sequence[Item]) -> list[Reading]:
        """The images and captions; from an object store, some files at a time."""
        fs, _ = fsspec.core.url_to_fs(self.path)
        readings: list[Reading] = []
        for start in range(0, len(items), _TOGETHER):
            chosen = items[start : start + _TOGETHER]
            files = [
                file
                for each in chosen
                for file in (each.where[0], *each.where[1], *each.where[3].values())
            ]
            contents = fs.cat(files, on_error="return") if files else {}
            readings += [_sample(each, contents, self.labels) for each in chosen]
        return readings

    def _caption_table(self, fs: Any, names: Mapping[str, str]) -> dict[str, str]:
        captions: dict[str, str] = {}
        for name, file in names.items():
            if "/" not in name and name.endswith(TABLE_SUFFIXES):
                text = fs.cat_file(file).decode("utf-8-sig", errors="replace")
                try:
                    captions.update(read_captions(name, text))
                except ValueError as error:  # JSON errors are ValueErrors
                    raise SourceError(
                        f"{self.path}/{name}: not a caption table: {error}"
                    ) from error
        return captions


def _sample(
    item: Item, contents: Mapping[str, bytes | Exception], definitions: Sequence[Modality]
) -> Reading:
    file, beside, caption, label_files = item.where
    found = {each: contents[each] for each in (file, *beside)}
    for each in found.values():
        if isinstance(each, Exception):
            return SampleError("read", f"{item.name}: {each}")
    data = {name: bytes(each) for name, each in found.items() if not isinstance(each, Exception)}
    source = {"file": item.name, "dataset": "folder"}
    for name in reversed(beside):  # the first of them has the last word
        text = data[name].decode("utf-8-sig", errors="replace")
        if name.endswith(".json"):
            record = _json_record(text)
            caption = caption_of(record) or caption
            source |= origin_of(record)
        else:
            caption = text
    labels = read_labels(definitions, partial(_label_file, label_files, contents), data[file])
    return RawSample(data[file], caption_of({"caption": caption}), labels, source)


def _label_file(
    files: Mapping[str, str], contents: Mapping[str, bytes | Exception], ending: str
) -> tuple[str, bytes] | SampleError | None:
    if ending not in files:
        return None
    name, content = PurePosixPath(files[ending]).name, contents[files[ending]]
    if isinstance(content, Exception):
        return SampleError("read", f"{name}: {content}")
    return name, content


def _json_record(text: str) -> dict[str, Any]:
    """What a file beside an image says; what is no JSON object says nothing."""
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def read_captions(name: str, text: str) -> dict[str, str]:
    r"""Captions by file name from the text of a table; `{}` when it has no such columns.

    >>> read_captions("c.csv", "image,caption\na.jpg,A cat\n")
    {'a.jpg': 'A cat'}
    """
    rows: list[Any]
    if name.endswith((".csv", ".tsv")):
        rows = list(
            csv.DictReader(io.StringIO(text), delimiter="\t" if name.endswith("tsv") else ",")
        )
    elif name.endswith(".jsonl"):
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        loaded = json.loads(text)
        if isinstance(loaded, dict):
            return {str(k): v for k, v in loaded.items() if isinstance(v, str)}
        rows = loaded
    captions = {}
    for row in rows:
        if not isinstance(row, dict):
            continue
        file = next((row[c] for c in NAME_COLUMNS if row.get(c)), None)
        caption = next((row[c] for c in CAPTION_COLUMNS if row.get(c)), None)
        if isinstance(file, str) and isinstance(caption, str):
            captions[file] = caption
    return captions


def _relative(file: str, root: str) -> str:
    return file[len(root.rstrip("/")) + 1 :]
