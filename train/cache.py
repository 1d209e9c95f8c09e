"""Shards of an object store on a disk of this machine: fetched once, as many as have room."""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from fourmill.manifests.errors import ShardError
from fourmill.manifests.shards import Shard

_FETCHERS = 8  # at a time
_SUFFIX = ".tar"


class ShardCache:
    """A folder of shards by their SHA-256, which datasets, runs and processes share.

    What was fetched is compared with the manifest, and then in place whole or not at all. When the
    folder holds more than `limit` bytes, what was used longest ago goes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._begun: dict[str, Future[None]] = {}

    def path(self, sha256: str) -> Path:
        """Where a shard lies, if it is there."""
        return self.folder / f"{sha256}{_SUFFIX}"

    def begin(self, shard: Shard, sha256: str) -> "Future[None]":
        """Have a shard fetched, unless it is there or on its way.

        The future raises `ShardError`, `StoreError`: see `fetch`.
        """
        with self._lock:
            found = self._begun.get(sha256)
            if found is None:
                found = self._begun[sha256] = self._pool.submit(self._fetch_once, shard, sha256)
            return found

    def fetch(self, shard: Shard, sha256: str) -> None:
        """Put a shard into the folder, unless another process does.

        Raises:
            ShardError: it is not in the store, or is not what the manifest says.
            StoreError: the store refuses, or cannot be reached.
        """
        target, part = self.path(sha256), self.folder / f".{sha256}.part"
        with _held(part):
            if target.exists():
                part.unlink()
                return
            try:
                shard.download(part)
                with part.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != sha256:
                    raise ShardError(
                        f"{shard.url}: its bytes are not those of the manifest (SHA-256 "
                        f"{found[:12]}…, recorded {sha256[:12]}…): `fourmill verify --deep` finds "
                        f"all such shards, and says what to do"
                    )
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        self._make_room(target)

    def touch(self, sha256: str) -> None:
        """Note that a shard is in use."""
        with suppress(FileNotFoundError):
            os.utime(self.path(sha256))

    @property
    def stamp(self) -> int:
        """Another number whenever shards came or went."""
        return self.folder.stat().st_mtime_ns

    def names(self) -> set[str]:
        """SHA-256 of the shards that are there."""
        return {each.removesuffix(_SUFFIX) for each in os.listdir(self.folder)}

    def _fetch_once(self, shard: Shard, sha256: str) -> None:
        try:
            if not self.path(sha256).exists():
                self.fetch(shard, sha256)
        finally:
            with self._lock:
                del self._begun[sha256]

    def _make_room(self, newest: Path) -> None:
        with _held(self.folder / ".lock"):
            files = []
            for entry in os.scandir(self.folder):
                if entry.name.endswith(_SUFFIX):
                    files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
            used = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if used <= self.limit:
                    break
                if path != str(newest):
                    os.unlink(path)
                    used -= size


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """A file, made if need be, that only one thread of all processes holds."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield
                    return
        time.sleep(0)  # who held it has moved it away: another one counts now
