"""A tokenizer's folder is there whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its place and name at the end.

    After an error, or a kill at any time, `folder` is as it was; or, between two renames, beside
    its place as `.NAME.old`.
    """
    aside, old = (folder.with_name(f".{folder.name}.{what}") for what in ("unfinished", "old"))
    _remove(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        _remove(aside)
        raise
    if folder.exists():  # renamed, for half of a folder must not stand under its name
        _remove(old)
        folder.rename(old)
    aside.rename(folder)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
