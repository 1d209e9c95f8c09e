"""What the readers of public sets share: bounded reading, folders that must be there, splits."""

from collections.abc import Mapping
from typing import Any

from fourmill.manifests.errors import SampleError, SourceError

MAX_FILE_BYTES = 256 * 2**20  # of a picture or a label
MAX_TABLE_BYTES = 4 * 2**30  # of a file that speaks of all pictures


def read_file(fs: Any, file: str) -> bytes:
    """The bytes of a picture or a label.

    Raises:
        SampleError: stage `read`; not there, not readable, or larger than `MAX_FILE_BYTES`.
    """
    name = file.rsplit("/", 1)[-1]
    try:
        data: bytes = fs.cat_file(file, end=MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise SampleError("read", f"{name} is not there") from error
    except OSError as error:
        raise SampleError("read", f"{name}: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise SampleError("read", f"{name} has more than {MAX_FILE_BYTES:,} bytes")
    return data


def read_table(fs: Any, file: str) -> bytes:
    """The bytes of a file that speaks of many pictures.

    Raises:
        SourceError: not readable, or larger than `MAX_TABLE_BYTES`.
    """
    try:
        size = int(fs.size(file))
        if size > MAX_TABLE_BYTES:
            raise SourceError(f"{file}: {size:,} bytes, expected at most {MAX_TABLE_BYTES:,}")
        data: bytes = fs.cat_file(file)
    except OSError as error:
        raise SourceError(f"{file}: not readable: {error}") from error
    return data


def files_below(fs: Any, folder: str, suffix: str = "") -> list[str]:
    """Files in a folder and below it, in order, whose names in small letters end so."""
    return sorted(str(each) for each in fs.find(folder) if str(each).lower().endswith(suffix))


def split_folders(
    fs: Any, root: str, folders: Mapping[str, str], split: str, layout: str
) -> dict[str, str]:
    """The folders of a set that are there, by split.

    Args:
        folders: of each split that the set has, relative to `root`.
        split: the only one that is wanted; `""` for all.
        layout: how the set lies on disk, for messages.

    Raises:
        SourceError: none of them is there; it says which were looked for.
    """
    wanted = {name: each for name, each in folders.items() if split in ("", name)}
    found = {name: f"{root}/{each}" for name, each in wanted.items() if fs.isdir(f"{root}/{each}")}
    if not found:
        looked = " nor ".join(f"{each}/" for each in wanted.values())
        raise SourceError(f"{root}: no {looked} in it; {layout}")
    return found
