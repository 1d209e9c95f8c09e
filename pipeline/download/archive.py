"""What came of URLs, kept as it came, so that nothing is downloaded twice.

A file holds the answers to a few hundred URLs and is named after them, and after what of the
settings decides the answers: a parquet file with a row a URL.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq
from yarl import URL

from fourmill.manifests.errors import SourceError
from fourmill.manifests.hashing import sha256_of
from fourmill.manifests.storage import Storage
from fourmill.pipeline.config import DownloadConfig
from fourmill.pipeline.download.answers import UNANSWERED, Fetched
from fourmill.pipeline.download.fetching import fetch_all

_SCHEMA = pa.schema([
    ("url", pa.string()), ("outcome", pa.string()), ("status", pa.int64()),
    ("reason", pa.string()), ("final_url", pa.string()), ("content_type", pa.string()),
    ("sha256", pa.string()), ("body", pa.large_binary()), ("attempts", pa.int64()),
    ("seconds", pa.float64()), ("fetched", pa.timestamp("us", "UTC")),
    ("pause_seconds", pa.float64()),
])  # fmt: skip
_DEAD_NETWORK_HOSTS = 10  # so many hosts do not fail at once on their own


class Archive:
    """Answers to URLs under one place, a path or any fsspec URL."""

    def __init__(self, place: str, config: DownloadConfig) -> None:
        self._place = place
        self._config = config

    def answers(self, urls: Sequence[str], wanted: Sequence[str]) -> dict[str, Fetched]:
        """The answers to the `wanted` ones of a group of URLs; what is not there is fetched.

        Raises:
            SourceError: not one of many hosts can be reached: then nothing is written down.
        """
        path = self._path(urls)
        kept = self._read(path)
        missing = [each for each in dict.fromkeys(wanted) if each not in kept]
        if missing:
            fetched = fetch_all(missing, self._config)
            _refuse_dead_network(fetched)
            kept |= {each.url: each for each in fetched}
            self._storage.write(path, _packed([kept[each] for each in sorted(kept)]))
        return kept

    def _path(self, urls: Sequence[str]) -> str:
        config = self._config
        decides = [config.max_bytes, config.obey_opt_outs, sorted(config.allow)]
        digest = sha256_of([sorted(set(urls)), decides])
        return f"{digest[:2]}/{digest}.parquet"

    def _read(self, path: str) -> dict[str, Fetched]:
        try:
            table = pq.read_table(io.BytesIO(self._storage.read(path)), use_threads=False)
        except FileNotFoundError:
            return {}
        return {row["url"]: Fetched(**row) for row in table.to_pylist()}

    @cached_property
    def _storage(self) -> Storage:
        return Storage(self._place)


def _packed(rows: Sequence[Fetched]) -> bytes:
    table = pa.Table.from_pylist([asdict(each) for each in rows], _SCHEMA)
    buffer = io.BytesIO()
    compression = {each.name: "zstd" for each in fields(Fetched) if each.name != "body"}
    pq.write_table(table, buffer, compression=compression | {"body": "none"}, use_dictionary=False)
    return buffer.getvalue()


def _refuse_dead_network(fetched: Sequence[Fetched]) -> None:
    if any(each.outcome not in UNANSWERED for each in fetched):
        return
    hosts = {URL(each.url).host for each in fetched}
    if len(hosts) >= _DEAD_NETWORK_HOSTS:
        raise SourceError(
            f"none of {len(hosts)} hosts can be reached, the last because: {fetched[-1].reason}; "
            f"is there a network? What was fetched is kept; run the same command again"
        )
