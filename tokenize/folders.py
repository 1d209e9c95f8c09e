"""A tokenizer's folder is there whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its place and name at the end.

    After an error, or a kill at any time, `folder` is as it was.
    """
    aside = folder.with_name(f".{folder.name}.unfinished")
    _remove(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        _remove(aside)
        raise
    _remove(folder)
    aside.rename(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
