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

from fourmill.manifests.errors import ConfigError, DatasetError, MissingPackageError, StoreError

ASIDE = ".tmp"
PART_BYTES = 16 * 2**20
"""Of an upload to S3; files of twice this size and more go up in parts, several at a time."""

_LOCK = ".publish.lock"
_S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,  # seconds
    "retries": {"mode": "standard", "max_attempts": 6},  # with growing pauses, some 20 s in all
}
_UPLOADS = 2  # a completed upload in parts whose answer was lost is unknown when asked for again


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
            self._fs, root = fsspec.url_to_fs(
                self.url, use_listings_cache=False, **_connection(self.url)
            )
        except ImportError as error:
            raise MissingPackageError(f"{url}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{url}: {error}") from error
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._is_s3 = "s3" in self._protocols
        self._root = str(root).rstrip("/")

    def full(self, path: str) -> str:
        """The path as people and other programs write it."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the object store refuses, or cannot be reached.
        """
        with self._talking(path):
            return bytes(self._fs.cat_file(self._place(path), **self._in_one_request))

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """The bytes of those files that are there, fetched together where that is faster."""
        if not paths:
            return []
        with self._talking(os.path.dirname(paths[0])):
            found = self._fs.cat(
                [self._place(path) for path in paths], on_error="return", **self._in_one_request
            )
            for each in found.values():
                if isinstance(each, Exception) and not isinstance(each, FileNotFoundError):
                    raise each
        contents = (found.get(self._place(path)) for path in paths)
        return [bytes(each) for each in contents if isinstance(each, bytes)]

    def open_array(self, path: str) -> NDArray[np.uint8]:
        """The bytes of a file: memory-mapped from a disk, fetched from an object store.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.is_local and os.path.getsize(self._place(path)):
            return np.memmap(self._place(path), np.uint8, mode="r")
        with self._talking(path):
            return np.frombuffer(self._fs.cat_file(self._place(path)), np.uint8)

    def local_path(self, path: str) -> Path | None:
        """Where a file lies on a disk of this machine; `None` in an object store."""
        return Path(self._place(path)) if self.is_local else None

    def download(self, path: str, target: Path) -> None:
        """Copy a file to a disk of this machine, overwriting.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the object store refuses, or cannot be reached.
        """
        with self._talking(path):
            self._fs.get_file(self._place(path), str(target))

    def write(self, path: str, data: "bytes | memoryview") -> None:
        """Put a file in place, whole, replacing what was there.

        Raises:
            StoreError: the object store refuses, or cannot be reached.
        """
        if not self.is_local:
            self._upload(path, bytes(data))
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
        if self._is_s3:
            with self._talking(path):
                return self._swap_s3(path, expected, data)
        return self._compare_and_write(path, expected, data)

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
        with self._talking(folder):
            found = self._fs.find(self._place(folder), detail=True)
        start = len(self._place("")) + 1 if self._place("") else 0
        return {
            path[start:]: FileInfo(int(each["size"] or 0), _modified(each))
            for path, each in sorted(found.items())
        }

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all below it; what is not there is no error."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError), self._talking(path):  # another may remove it just now
            self._fs.rm(self._place(path), recursive=True)

    def remove_file(self, path: str) -> None:
        """Remove one file, in one request; what is not there is no error."""
        with suppress(FileNotFoundError), self._talking(path):
            self._fs.rm_file(self._place(path))

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    @property
    def _protocols(self) -> tuple[str, ...]:
        protocol = self._fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    @property
    def _in_one_request(self) -> dict[str, int]:
        """Options for small files: do not ask for the size first, to fetch in parts."""
        return {"max_concurrency": 1} if self._is_s3 else {}

    @contextmanager
    def _talking(self, path: str) -> Iterator[None]:
        """Whatever a store says but that a file is not there, as one kind of error."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            if self.is_local or isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.full(path)}: {_complaint(error)}") from error

    def _upload(self, path: str, data: bytes) -> None:
        parts = {"chunksize": PART_BYTES} if self._is_s3 else {}
        attempts = _UPLOADS if self._is_s3 and len(data) >= 2 * PART_BYTES else 1
        for left in reversed(range(attempts)):
            try:
                with self._talking(path):
                    self._fs.pipe_file(self._place(path), data, **parts)
                return
            except FileNotFoundError as error:
                if not left:
                    raise StoreError(
                        f"{self.full(path)}: {error}; the bucket must be there beforehand"
                    ) from error

    def _list(self, folder: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache()
        place = self._place(folder)
        while True:
            try:
                with self._talking(folder):
                    entries = self._fs.ls(place, detail=True)
                break
            except FileNotFoundError:  # of the folder, or of a file that vanished meanwhile
                if not self.is_local or not self._fs.isdir(place):
                    return []
        return sorted((e for e in entries if e["name"].rstrip("/") != place), key=_name)

    def _compare_and_write(self, path: str, expected: bytes | None, data: bytes) -> bool:
        try:
            found = self.read(path)
        except FileNotFoundError:
            found = None
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
                # ours, if it got there and only the answer was lost: it was sent again since
                return self.read(path) == data
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


def _connection(url: str) -> dict[str, Any]:
    """Options for S3, unless fsspec's own configuration has some."""
    if not url.startswith(("s3://", "s3a://")):
        return {}
    configured = fsspec.config.conf.get("s3", {})
    return {} if "config_kwargs" in configured else {"config_kwargs": _S3_CONFIG}


def _complaint(error: Exception) -> str:
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return f"the store refuses ({error}): check the credentials"
    return f"the store fails, after several attempts: {type(error).__name__}: {error}"


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
