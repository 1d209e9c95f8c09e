"""The files that a user means by a path, a folder or a glob, under names that do not move."""

from typing import Any

import fsspec

from fourmill.manifests.errors import SourceError


def open_place(path: str) -> tuple[Any, str]:
    """The file system of a path, and the path in it."""
    fs, root = fsspec.core.url_to_fs(path)
    return fs, str(root)


def find_files(path: str, suffix: str) -> list[tuple[str, str]]:
    """Files in order, each with its name without suffix: relative to the folder, or to the part of
    a glob before its first wildcard.

    Raises:
        SourceError: there is none.
    """
    fs, root = open_place(path)
    if fs.isfile(root):
        return [(root, root.rsplit("/", 1)[-1].removesuffix(suffix))]
    if fs.isdir(root):
        files = [str(each) for each in fs.find(root) if str(each).endswith(suffix)]
        start = f"{root.rstrip('/')}/"
    else:
        files = [str(each) for each in fs.glob(root)]
        start = root[: min(root.find(each) for each in "*?[{" if each in root)] if files else ""
        start = start[: start.rfind("/") + 1]
    if not files:
        raise SourceError(f"{path}: no {suffix} file there")
    return [(each, each.removeprefix(start).removesuffix(suffix)) for each in sorted(files)]
