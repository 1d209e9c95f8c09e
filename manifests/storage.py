"""Files of a dataset, on a disk or in an object store; a file is there whole or not at all."""

import fcntl
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError, DatasetError, MissingPackageError

ASIDE = ".tmp"
_LOCK = ".publish.lock"


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes, and when it was written (UTC)."""

    bytes: int
    modified: datetime


class Storage:
    """What lies under one URL; all paths are relative to it. Picklable.

    Raises:
        ConfigError: a URL of an unknown kind.
        MissingPackageError: the package for that kind of URL is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or "/"
        try:
            self._fs, root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise MissingPackageError(f"{url}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{url}: {error}") from error
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root = str(root).rstrip("/")

    def full(self, path: str) -> str:
        """The path as people and other programs write it."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        return bytes(self._fs.cat_file(self._place(path)))

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """The bytes of those files that are there, fetched together where that is faster."""
        places = [self._place(path) for path in paths]
        found = self._fs.cat(places, on_error="omit") if places else {}
        return [bytes(found[place]) for place in places if place in found]

    def open_array(self, path: str) -> NDArray[np.uint8]:
        """The bytes of a file: memory-mapped from a disk, fetched from an object store.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.is_local and os.path.getsize(self._place(path)):
            return np.memmap(self._place(path), np.uint8, mode="r")
        return np.frombuffer(self.read(path), np.uint8)

    def write(self, path: str, data: "bytes | memoryview") -> None:
        """Put a file in place, whole, replacing what was there."""
        if not self.is_local:
            self._fs.pipe_file(self._place(path), bytes(data))
            return
        target = Path(self._place(path))
        aside = Path(self._place(f"{ASIDE}/{target.name}.{uuid.uuid4().hex}"))
        for folder in (target.parent, aside.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def swap(self, path: str, expected: bytes | None, data: bytes) -> bool:
        """Replace a small file if it still holds `expected` (`None`: if there is none).

        Safe against other writers on disks and on stores that know conditional writes (S3);
        elsewhere two writers within the same moment can overwrite each other.

        Returns:
            Whether it was replaced.
        """
        if self.is_local:
            with self._lock():
                return self._compare_and_write(path, expected, data)
        if "s3" in self._protocols:
            return self._swap_s3(path, expected, data)
        return self._compare_and_write(path, expected, data)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        self._fs.invalidate_cache()
        return bool(self._fs.isfile(self._place(path)))

    def files(self, folder: str = "") -> dict[str, FileInfo]:
        """Names of the files directly in a folder, sorted; empty if there is no such folder."""
        return {
            _name(each): FileInfo(int(each["size"] or 0), _modified(each))
            for each in self._list(folder)
            if each["type"] == "file"
        }

    def folders(self) -> list[str]:
        """Names of the folders directly under the root, sorted."""
        return [_name(each) for each in self._list("") if each["type"] == "directory"]

    def names(self, folder: str) -> list[str]:
        """Names of all that is directly in a folder, sorted; empty if there is no such folder."""
        return [_name(each) for each in self._list(folder)]

    def find(self, folder: str) -> dict[str, FileInfo]:
        """All files below a folder, as paths under the root."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._place(folder), detail=True)
        start = len(self._place("")) + 1 if self._place("") else 0
        return {
            path[start:]: FileInfo(int(each["size"] or 0), _modified(each))
            for path, each in sorted(found.items())
        }

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all below it; what is not there is no error."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):  # another may remove it in the same moment
            self._fs.rm(self._place(path), recursive=True)

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    @property
    def _protocols(self) -> tuple[str, ...]:
        protocol = self._fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def _list(self, folder: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache()
        place = self._place(folder)
        while True:
            try:
                entries = self._fs.ls(place, detail=True)
                break
            except FileNotFoundError:  # of the folder, or of a file that vanished meanwhile
                if not self._fs.isdir(place):
                    return []
        return sorted((e for e in entries if e["name"].rstrip("/") != place), key=_name)

    def _compare_and_write(self, path: str, expected: bytes | None, data: bytes) -> bool:
        found = self.read(path) if self.exists(path) else None
        if found != expected:
            return False
        self.write(path, data)
        return True

    def _swap_s3(self, path: str, expected: bytes | None, data: bytes) -> bool:
        place = self._place(path)
        if expected is None:
            conditions = {"mode": "create"}
        else:
            conditions = {"IfMatch": self._fs.info(place, refresh=True)["ETag"]}
            if self.read(path) != expected:
                return False
        try:
            self._fs.pipe_file(place, data, **conditions)
        except OSError as error:
            if isinstance(error, FileExistsError) or _lost_race(error):
                return False
            raise
        return True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """The right to publish, for one process at a time; it ends with the process."""
        place = Path(self._place(_LOCK))
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _lost_race(error: OSError) -> bool:
    """Whether S3 refused a write because its condition did not hold (codes 412 and 409)."""
    answer = getattr(error.__cause__, "response", {})
    code = answer.get("Error", {}).get("Code")
    return code in ("PreconditionFailed", "ConditionalRequestConflict")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(info: dict[str, Any]) -> str:
    return str(info["name"]).rstrip("/").rsplit("/", 1)[-1]


def _modified(info: dict[str, Any]) -> datetime:
    for field in ("mtime", "LastModified", "updated", "last_modified", "created"):
        value = info.get(field)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
    raise DatasetError(f"{info.get('name')}: the store does not say when it was written")
