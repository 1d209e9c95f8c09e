"""Parquet files with the bytes of images in a column, as on dataset hubs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.pipeline.sources.base import Item, RawSample, Reading, read_alone
from fourmill.pipeline.sources.files import find_files, open_place
from fourmill.pipeline.sources.origin import caption_of, origin_of

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "bytes", "image_bytes", "img")
_SPLIT = re.compile(r"(?:.*/)?(train|validation|valid|val|test)[-_.][^/]*")
_SPLIT_NAMES = {"validation": "val", "valid": "val"}


@dataclass(frozen=True)
class ParquetSource:
    """One parquet file, or a folder or glob of them (any fsspec URL).

    The image is a binary column, or a struct with a field `bytes`; the caption a string column, or
    a list of strings. Files named `validation-…` or `test-…`, as dataset hubs do, are splits.
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
        items = []
        fs, _ = open_place(self.path)
        for file, label in find_files(self.path, ".parquet"):
            named = _SPLIT.fullmatch(label)
            split = _SPLIT_NAMES.get(named[1], named[1]) if named else "train"
            try:
                with fs.open(file, "rb") as stream:
                    table = pq.ParquetFile(stream)
                    image_column(table.schema_arrow.names, file)
                    groups = row_groups(table)
            except (OSError, ValueError) as error:
                items.append(Item(f"{label}.parquet", split, where=(file, str(error), 0)))
                continue
            items += [
                Item(f"{label}/{start + row:09d}", split, (file, group, row), f"{label}#{group}")
                for group, (start, rows) in enumerate(groups)
                for row in range(rows)
            ]
        return items

    def read(self, item: Item) -> RawSample:
        """The row's image and text."""
        return read_alone(self, item)

    def read_many(self, items: Sequence[Item]) -> list[Reading]:
        """The rows' images and texts; each row group is read once."""
        fs, _ = open_place(self.path)
        readings: dict[str, Reading] = {}
        ordered = sorted(items, key=lambda each: (each.where[0], str(each.where[1])))
        for (file, group), members in groupby(ordered, key=lambda each: each.where[:2]):
            chosen = list(members)
            try:
                if isinstance(group, str):
                    raise ValueError(group)
                records = read_rows(fs, file, group, [each.where[2] for each in chosen])
            except (OSError, ValueError) as error:
                reason = f"{file}: not a readable parquet file: {error}"
                readings |= {each.name: SampleError("read", reason) for each in chosen}
                continue
            for item, record in zip(chosen, records, strict=True):
                readings[item.name] = self._sample(item, record)
        return [readings[each.name] for each in items]

    def _sample(self, item: Item, record: Mapping[str, Any]) -> Reading:
        image = record[image_column(list(record), item.where[0])]
        if isinstance(image, dict):
            image = image.get("bytes")
        if not isinstance(image, bytes):
            return SampleError("read", f"{item.name}: the image column holds no bytes")
        origin = origin_of(record)
        source = {"file": item.name, "dataset": self.name, **origin}
        return RawSample(image, caption_of(record), source=source)


def image_column(names: Sequence[str], file: str) -> str:
    """The column of images.

    Raises:
        SourceError: there is none.
    """
    for each in IMAGE_COLUMNS:
        if each in names:
            return each
    raise SourceError(f"{file}: no column of images (looked for {', '.join(IMAGE_COLUMNS)})")


def row_groups(table: pq.ParquetFile) -> list[tuple[int, int]]:
    """(number of the first row, rows) of each row group."""
    rows = [table.metadata.row_group(each).num_rows for each in range(table.num_row_groups)]
    return [(sum(rows[:group]), count) for group, count in enumerate(rows)]


def read_rows(fs: Any, file: str, group: int, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of one row group, as they are written.

    Raises:
        OSError: not readable.
        ValueError: not parquet.
    """
    with fs.open(file, "rb") as stream:
        table: pa.Table = pq.ParquetFile(stream).read_row_group(group)
    return list(table.take(list(rows)).to_pylist())
