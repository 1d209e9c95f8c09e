"""Parquet files with the bytes of images in a column, as on dataset hubs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fsspec
import pyarrow.parquet as pq

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.pipeline.sources.base import Item, RawSample
from fourmill.pipeline.sources.folder import CAPTION_COLUMNS

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "bytes", "image_bytes", "img")
SOURCE_COLUMNS = ("url", "title", "licence", "license", "creator")


@dataclass(frozen=True)
class ParquetSource:
    """One parquet file, or a folder or glob of them (any fsspec URL).

    The image is a binary column, or a struct with a field `bytes`; the caption a string column.
    """

    path: str
    name: str = "parquet"
    label_modalities: Sequence[str] = ()

    @property
    def params(self) -> Mapping[str, Any]:
        """Where the files are."""
        return {"path": self.path}

    def listing(self) -> list[Item]:
        """One item a row, from the files' footers alone."""
        fs, root = fsspec.core.url_to_fs(self.path)
        files = [root] if fs.isfile(root) else sorted(map(str, fs.glob(root)))
        if fs.isdir(root):
            files = sorted(each for each in map(str, fs.find(root)) if each.endswith(".parquet"))
        if not files:
            raise SourceError(f"{self.path}: no parquet file there")
        items = []
        for file in files:
            stem = file.rsplit("/", 1)[-1].removesuffix(".parquet")
            try:
                with fs.open(file, "rb") as stream:
                    table = pq.ParquetFile(stream)
                    _image_column(table.schema_arrow.names, file)
                    groups = [
                        table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)
                    ]
            except (OSError, ValueError) as error:
                items.append(Item(f"{stem}.parquet", where=(file, str(error), 0)))
                continue
            starts = [sum(groups[:g]) for g in range(len(groups))]
            items += [
                Item(f"{stem}/{start + row:09d}", where=(file, group, row))
                for group, (start, rows) in enumerate(zip(starts, groups, strict=True))
                for row in range(rows)
            ]
        return items

    def read(self, item: Item) -> RawSample:
        """The row's image and text."""
        file, group, row = item.where
        if isinstance(group, str):
            raise SampleError("read", f"{file}: not a readable parquet file: {group}")
        rows = _row_group(self.path, file, group)
        record = {name: column[row].as_py() for name, column in rows.items()}
        image = record[_image_column(list(record), file)]
        if isinstance(image, dict):
            image = image.get("bytes")
        if not isinstance(image, bytes):
            raise SampleError("read", f"{item.name}: the image column holds no bytes")
        caption = next((record[c] for c in CAPTION_COLUMNS if isinstance(record.get(c), str)), None)
        origin = {c: str(record[c]) for c in SOURCE_COLUMNS if record.get(c)}
        caption = " ".join(caption.split()) if caption else None
        return RawSample(
            image, caption or None, source={"file": item.name, "dataset": self.name, **origin}
        )


def _image_column(names: Sequence[str], file: str) -> str:
    for each in IMAGE_COLUMNS:
        if each in names:
            return each
    raise SourceError(f"{file}: no column of images (looked for {', '.join(IMAGE_COLUMNS)})")


@lru_cache(maxsize=2)  # rows of one group are read one after another
def _row_group(path: str, file: str, group: int) -> dict[str, Any]:
    fs, _ = fsspec.core.url_to_fs(path)
    with fs.open(file, "rb") as stream:
        table = pq.ParquetFile(stream).read_row_group(group)
    return {name: table.column(name) for name in table.column_names}
