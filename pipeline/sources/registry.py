"""From what a user writes (`~/Pictures`, `builtin:photos`, `coco:/data/coco`) to a source."""

from collections.abc import Sequence
from urllib.parse import parse_qsl

import fsspec
import pyarrow.parquet as pq

from fourmill.manifests.errors import ConfigError, SourceError
from fourmill.manifests.modalities import Modality
from fourmill.pipeline.config import DownloadConfig, FilterConfig
from fourmill.pipeline.corpora.registry import open_builtin
from fourmill.pipeline.sources.base import Source
from fourmill.pipeline.sources.files import find_files, open_place
from fourmill.pipeline.sources.folder import FolderSource
from fourmill.pipeline.sources.lists import url_column
from fourmill.pipeline.sources.parquet import IMAGE_COLUMNS, ParquetSource
from fourmill.pipeline.sources.sets import SETS, open_set
from fourmill.pipeline.sources.urls import UrlListSource
from fourmill.pipeline.sources.webdataset import WebDatasetSource


def open_source(
    text: str,
    download: DownloadConfig | None = None,
    filters: FilterConfig | None = None,
    archive: str = "",
    labels: Sequence[Modality] = (),
) -> Source:
    """The source that a user means.

    Args:
        text: `builtin:NAME?option=value&…`; a public set and where it lies, such as
            `coco:/data/coco?split=val`; a `.tar`, `.parquet`, `.tsv` or `.csv` file or glob; or
            a folder, which may hold images, tars or parquet files.
        download: how the pictures of a list of URLs are fetched.
        filters: what of such a list need not be fetched.
        archive: where answers are kept.
        labels: modalities whose labels lie beside the pictures, in folders and in tars.

    Raises:
        ConfigError: an option that is not known, or whose value means nothing.
        SourceError: nothing is there.
    """
    if text.startswith("builtin:"):
        name, _, query = text.removeprefix("builtin:").partition("?")
        return open_builtin(name, **_options(query, text))
    public = open_set(text)
    if public is not None:
        return public
    suffix = text[text.rfind(".") :]
    if suffix == ".tar":
        return WebDatasetSource(text, labels)
    if suffix == ".parquet" and not _is_url_list(text):
        return ParquetSource(text)
    settings = (download or DownloadConfig(), filters or FilterConfig(), archive)
    if suffix in (".parquet", ".tsv", ".csv"):
        return UrlListSource(text, suffix, *settings)
    fs, root = fsspec.core.url_to_fs(text)
    if not fs.exists(root):
        raise SourceError(
            f"{text}: no such folder or file; built-in corpora are written builtin:NAME, public "
            f"sets NAME:PATH with one of {', '.join(SETS)}"
        )
    names = [str(each) for each in fs.ls(root, detail=False)] if fs.isdir(root) else []
    if any(each.endswith(".tar") for each in names):
        return WebDatasetSource(text, labels)
    if any(each.endswith(".parquet") for each in names):
        return (
            UrlListSource(text, ".parquet", *settings)
            if _is_url_list(text)
            else ParquetSource(text)
        )
    return FolderSource(text, labels)


def _is_url_list(text: str) -> bool:
    """Whether the first of some parquet files names pictures rather than holding them."""
    fs, _ = open_place(text)
    file, _ = find_files(text, ".parquet")[0]
    try:
        with fs.open(file, "rb") as stream:
            names = pq.read_schema(stream).names
    except (OSError, ValueError):
        return False
    return url_column(names) is not None and not set(names) & set(IMAGE_COLUMNS)


def _options(query: str, text: str) -> dict[str, int]:
    options = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if not value.isdigit():
            raise ConfigError(f"{text}: option {key!r} must be a whole number, not {value!r}")
        options[key] = int(value)
    return options
