"""Lists of URLs with captions, as CC12M (tsv) and COYO (parquet) come; pictures are downloaded."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.pipeline.config import DownloadConfig, FilterConfig
from fourmill.pipeline.download.answers import Fetched
from fourmill.pipeline.filters import refuse_listed
from fourmill.pipeline.sources.base import Item, RawSample, Reading, read_alone
from fourmill.pipeline.sources.files import find_files, open_place
from fourmill.pipeline.sources.lists import Block, blocks_of, read_block, row_text, url_column
from fourmill.pipeline.sources.origin import caption_of, origin_of

TOGETHER = 200  # URLs whose answers are kept in one file, and lost when a worker is killed


@dataclass
class UrlListSource:
    """A `.tsv`, `.csv` or `.parquet` file of URLs, or a folder or glob of them (any fsspec URL).

    A text file has a line a row: with a header, or without one, where the caption is the first
    other column. Scores, titles and licences of a row are kept; filters that need no picture are
    asked before it is fetched.

    Args:
        suffix: of the lists.
        archive: where answers are kept as they came.
    """

    path: str
    suffix: str
    download: DownloadConfig
    filters: FilterConfig
    archive: str
    name: str = "urls"
    label_modalities: Sequence[str] = ()
    _content: str = field(default="", init=False)

    @property
    def params(self) -> Mapping[str, Any]:
        """Where the lists are, what is in them, and what decides which answers are taken."""
        return {
            "path": self.path,
            "content_sha256": self._content,
            "max_bytes": self.download.max_bytes,
            "obey_opt_outs": self.download.obey_opt_outs,
            "allow": list(self.download.allow),
        }

    def listing(self) -> list[Item]:
        """One item a row; reads text lists once, of parquet the footers."""
        fs, _ = open_place(self.path)
        digest = hashlib.sha256()
        items: list[Item] = []
        for file, label in find_files(self.path, self.suffix):
            digest.update(f"{label}\n".encode())
            try:
                for block in blocks_of(fs, file, digest):
                    group = f"{label}#{block.number}"
                    items += [
                        Item(f"{label}/{block.first_row + row:09d}", "train", (block, row), group)
                        for row in range(block.rows)
                    ]
            except (OSError, ValueError) as error:
                raise SourceError(f"{file}: not a readable list of URLs: {error}") from error
        self._content = digest.hexdigest()
        return items

    def read(self, item: Item) -> RawSample:
        """The picture of one row."""
        return read_alone(self, item)

    def read_many(self, items: Sequence[Item]) -> list[Reading]:
        """The pictures of the rows, downloaded together unless their answers are in the archive.

        Raises:
            SourceError: no host at all can be reached.
        """
        readings: list[Reading] = []
        for start in range(0, len(items), TOGETHER):
            readings += self._read_some(items[start : start + TOGETHER])
        return readings

    def _read_some(self, items: Sequence[Item]) -> list[Reading]:
        from fourmill.pipeline.download.archive import Archive  # an HTTP library: a while to import

        rows = [self._row(each) for each in items]
        urls = [row_text(row, url_column(list(row))) for row in rows]
        refusals = [self._refusal(*each) for each in zip(items, rows, urls, strict=True)]
        wanted = [url for url, refusal in zip(urls, refusals, strict=True) if refusal is None]
        answers = Archive(self.archive, self.download).answers(urls, wanted) if wanted else {}
        return [
            refusal or self._reading(item, row, answers[url])
            for item, row, url, refusal in zip(items, rows, urls, refusals, strict=True)
        ]

    def _reading(self, item: Item, row: Mapping[str, Any], answer: Fetched) -> Reading:
        if answer.outcome != "ok":
            return SampleError("download", f"{answer.url}: {answer.reason}")
        source = {"file": item.name, "dataset": self.name, **origin_of(row), "url": answer.url}
        if answer.final_url != answer.url:
            source["final_url"] = answer.final_url
        source["sha256"] = answer.sha256
        return RawSample(answer.body, caption_of(row), source=source)

    def _refusal(self, item: Item, row: Mapping[str, Any], url: str) -> SampleError | None:
        """Why a row is not worth a download."""
        if not url:
            return SampleError("read", f"{item.name}: the row has no URL")
        try:
            refuse_listed(self.filters, row)
        except SampleError as error:
            return SampleError(error.stage, f"{url}: {error.reason}")
        return None

    def _row(self, item: Item) -> dict[str, Any]:
        block, row = item.where
        try:
            rows = _rows(self.path, block)
        except (OSError, ValueError) as error:
            raise SourceError(f"{block.file}: no longer readable: {error}") from error
        return rows[row] if row < len(rows) else {}


@lru_cache(maxsize=4)  # the rows of a block are wanted together
def _rows(path: str, block: Block) -> list[dict[str, Any]]:
    return read_block(open_place(path)[0], block)
