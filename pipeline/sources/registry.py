"""From what a user writes (`~/Pictures`, `builtin:photos?count=100`, `*.tar`) to a source."""

from urllib.parse import parse_qsl

import fsspec

from fourmill.manifests.errors import ConfigError, SourceError
from fourmill.pipeline.corpora.registry import open_builtin
from fourmill.pipeline.sources.base import Source
from fourmill.pipeline.sources.folder import FolderSource
from fourmill.pipeline.sources.parquet import ParquetSource
from fourmill.pipeline.sources.webdataset import WebDatasetSource


def open_source(text: str) -> Source:
    """The source that a user means.

    Args:
        text: `builtin:NAME?option=value&…`; a `.tar` or `.parquet` file or glob; or a folder, which
            may hold images, tars or parquet files.

    Raises:
        ConfigError: an option that is not a whole number.
        SourceError: nothing is there.
    """
    if text.startswith("builtin:"):
        name, _, query = text.removeprefix("builtin:").partition("?")
        return open_builtin(name, **_options(query, text))
    if text.endswith(".tar"):
        return WebDatasetSource(text)
    if text.endswith(".parquet"):
        return ParquetSource(text)
    fs, root = fsspec.core.url_to_fs(text)
    if not fs.exists(root):
        raise SourceError(
            f"{text}: no such folder or file; built-in corpora are written builtin:NAME"
        )
    names = [str(each) for each in fs.ls(root, detail=False)] if fs.isdir(root) else []
    if any(each.endswith(".tar") for each in names):
        return WebDatasetSource(text)
    if any(each.endswith(".parquet") for each in names):
        return ParquetSource(text)
    return FolderSource(text)


def _options(query: str, text: str) -> dict[str, int]:
    options = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if not value.isdigit():
            raise ConfigError(f"{text}: option {key!r} must be a whole number, not {value!r}")
        options[key] = int(value)
    return options
