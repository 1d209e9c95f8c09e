"""The rows of a list of URLs: where each is, so that a worker reads only its part of the list.

A text list has a line a row; lines are read in blocks, as the rows of parquet are in row groups.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from fourmill.manifests.errors import SourceError
from fourmill.pipeline.sources.origin import CAPTION_COLUMNS, URL_COLUMNS
from fourmill.pipeline.sources.parquet import read_rows, row_groups

BLOCK_LINES = 4096
_HTTP = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are read together.

    Attributes:
        number: of the block in its file; the row group of a parquet file.
        offset: of its first byte in a text file.
        size: bytes of a text file.
        columns: of a text file, the header's or ours.
    """

    file: str
    number: int
    first_row: int
    rows: int
    offset: int = 0
    size: int = 0
    columns: tuple[str, ...] = ()


def blocks_of(fs: Any, file: str, digest: "hashlib._Hash") -> Iterator[Block]:
    """The blocks of one list, in order; what decides its content goes into the digest.

    Raises:
        SourceError: no column of URLs.
    """
    return (_row_groups if file.endswith(".parquet") else _lines)(fs, file, digest)


def read_block(fs: Any, block: Block) -> list[dict[str, Any]]:
    """The rows of a block by column; a row that is not readable is empty.

    Raises:
        OSError: not readable.
        ValueError: not parquet.
    """
    if block.file.endswith(".parquet"):
        return read_rows(fs, block.file, block.number, range(block.rows))
    data: bytes = fs.cat_file(block.file, start=block.offset, end=block.offset + block.size)
    lines = data.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")[: block.rows]
    rows = (_fields(line, block.file) for line in lines)
    return [dict(zip(block.columns, fields, strict=False)) for fields in rows]


def url_column(names: Sequence[str]) -> str | None:
    """The column of URLs, if there is one."""
    lower = {name.lower(): name for name in names}
    return next((lower[each] for each in URL_COLUMNS if each in lower), None)


def _row_groups(fs: Any, file: str, digest: "hashlib._Hash") -> Iterator[Block]:
    with fs.open(file, "rb") as stream:
        table = pq.ParquetFile(stream)
        if url_column(table.schema_arrow.names) is None:
            raise SourceError(f"{file}: no column of URLs (looked for {', '.join(URL_COLUMNS)})")
        groups = row_groups(table)
        for group in range(len(groups)):  # sizes and extremes of all columns: no need to read them
            digest.update(repr(table.metadata.row_group(group).to_dict()).encode())
    for group, (start, rows) in enumerate(groups):
        yield Block(file, group, start, rows)


def _lines(fs: Any, file: str, digest: "hashlib._Hash") -> Iterator[Block]:
    number, row, offset, size, lines = 0, 0, 0, 0, 0
    columns: tuple[str, ...] = ()
    with fs.open(file, "rb") as stream:
        for line in stream:
            digest.update(line)
            if not columns:
                fields = _fields(line.decode("utf-8-sig", "replace").rstrip("\n"), file)
                columns, is_header = _columns(fields, file)
                if is_header:
                    offset = len(line)
                    continue
            size += len(line)
            lines += 1
            if lines == BLOCK_LINES:
                yield Block(file, number, row, lines, offset, size, columns)
                number, row, offset, size, lines = number + 1, row + lines, offset + size, 0, 0
    if lines:
        yield Block(file, number, row, lines, offset, size, columns)


def _columns(fields: Sequence[str], file: str) -> tuple[tuple[str, ...], bool]:
    """Names of the columns, and whether the first line is what named them."""
    places = [number for number, each in enumerate(fields) if each.startswith(_HTTP)]
    if not places:
        if url_column(fields) is None:
            raise SourceError(
                f"{file}: its first line has neither a URL nor the name of a column of URLs "
                f"({', '.join(URL_COLUMNS)})"
            )
        return tuple(fields), True
    names = [f"column_{number}" for number in range(len(fields))]
    names[places[0]] = "url"
    if len(fields) > 1:
        names[0 if places[0] else 1] = CAPTION_COLUMNS[0]
    return tuple(names), False


def _fields(line: str, file: str) -> list[str]:
    line = line.rstrip("\r")
    if not file.endswith(".csv"):
        return line.split("\t")
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def row_text(row: Mapping[str, Any], column: str | None) -> str:
    """A field as text; empty where there is none."""
    value = row.get(column) if column else None
    return value.strip() if isinstance(value, str) else ""
