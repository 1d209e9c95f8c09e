"""Weights of detectron2's model zoo: fetched once, and read without running what is inside.

They are pickles. A pickle may run programs, so only what arrays are made of is let through.
"""

import io
import os
import pickle
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.hub import file_sha256
from fourmill.manifests.packages import cache_folder

PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

_ALLOWED = {
    ("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray"),
    ("_codecs", "encode"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}  # fmt: skip


def checkpoint(path: str) -> Path:
    """A file below `PREFIX`: from `$FOURMILL_WEIGHTS/detectron2/`, from the cache, or fetched.

    Raises:
        MissingPackageError: it is not on this machine and cannot be fetched.
    """
    given = os.environ.get("FOURMILL_WEIGHTS")
    if given and (Path(given) / "detectron2" / path).is_file():
        return Path(given) / "detectron2" / path
    target = cache_folder() / "detectron2" / path
    if not target.is_file():
        _fetch(path, target)
    return target


def sha256(path: str) -> str:
    """Digest of a file below `PREFIX`, which is fetched if it is not there.

    Raises:
        MissingPackageError: see `checkpoint`.
    """
    return file_sha256(checkpoint(path))


def load_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a checkpoint, by the names of the network's parameters.

    Raises:
        MissingPackageError: it is no checkpoint, or holds more than arrays.
    """
    try:
        found = _Arrays(io.BytesIO(file.read_bytes()), encoding="latin1").load()["model"]
        return {name: np.asarray(each) for name, each in found.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise MissingPackageError(
            f"{file} is no checkpoint of detectron2 ({error}): remove it, and it is fetched again"
        ) from error


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is never run")
        return super().find_class(module, name)


def _fetch(path: str, target: Path) -> None:
    """Write aside, then move into place; who comes second finds the same bytes."""
    place = f"$FOURMILL_WEIGHTS/detectron2/{path}"
    if os.environ.get("FOURMILL_OFFLINE") == "1":
        raise MissingPackageError(
            f"{PREFIX}{path} is not on this machine, and FOURMILL_OFFLINE=1 forbids to fetch it: "
            f"put it into {place}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        aside = Path(scratch) / target.name
        try:
            urllib.request.urlretrieve(PREFIX + path, aside)
        except OSError as error:
            raise MissingPackageError(
                f"{PREFIX}{path} cannot be fetched ({error}): put it into {place}"
            ) from error
        os.replace(aside, target)
