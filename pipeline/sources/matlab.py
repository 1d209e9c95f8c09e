"""MATLAB files: those of version 7.3, which are HDF5, and older ones; nothing outside of them."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import MissingPackageError, SourceError
from fourmill.pipeline.sources.originals import MAX_FILE_BYTES, read_table

_MAX_WORDS = 100_000
_MAX_LETTERS = 200  # of a word


def read_matlab(fs: Any, file: str, variables: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Variables of a file older than 7.3.

    Raises:
        SourceError: not readable, not such a file, or without one of them.
    """
    from scipy.io import loadmat

    data = read_table(fs, file)
    try:
        found = loadmat(io.BytesIO(data), variable_names=list(variables))
    except Exception as error:  # what scipy says of broken bytes has many types
        raise SourceError(f"{file}: not a MATLAB file: {error}") from error
    missing = [each for each in variables if each not in found]
    if missing:
        raise SourceError(f"{file}: there is no variable {missing[0]} in it")
    return {each: found[each] for each in variables}


@contextmanager
def open_hdf5(fs: Any, file: str, extra: str) -> Iterator[Any]:
    """A file of version 7.3, opened by h5py.

    Args:
        extra: of fourmill, which brings h5py.

    Raises:
        MissingPackageError: h5py is not installed.
        SourceError: not such a file.
    """
    if find_spec("h5py") is None:
        raise MissingPackageError(f"{file} needs h5py: pip install 'fourmill[{extra}]'")
    import h5py

    with fs.open(file, "rb") as stream:
        try:
            opened = h5py.File(stream, "r")
        except OSError as error:
            raise SourceError(f"{file}: not a MATLAB file of version 7.3: {error}") from error
        with opened:
            yield opened


def array_of(file: Any, name: str, dtype: str, axes: int) -> Any:
    """An array of an HDF5 file, not yet read; its parts along the first axis can be.

    Raises:
        SourceError: it is not there, or only as a link out of the file; it has another type; or a
            part has more bytes than anything that is meant here.
    """
    import h5py

    link = file.get(name, getlink=True)
    array: Any = file[name] if isinstance(link, h5py.HardLink) else None
    if not _is_own(array):
        raise SourceError(f"{_name(file)}: there is no array {name!r} in it")
    if array.ndim != axes or array.dtype != np.dtype(dtype):
        raise SourceError(
            f"{_name(file)}: {name} is {array.dtype} of {array.ndim} axes, expected "
            f"{np.dtype(dtype)} of {axes}"
        )
    part = max(math.prod(array.shape[1:]), math.prod(array.chunks or ())) * array.dtype.itemsize
    if part > MAX_FILE_BYTES:
        raise SourceError(
            f"{_name(file)}: {name} is read in parts of {part:,} bytes, expected at most "
            f"{MAX_FILE_BYTES:,}"
        )
    return array


def words_of(file: Any, name: str) -> list[str]:
    """A cell array of words.

    Raises:
        SourceError: it is none.
    """
    import h5py

    table = array_of(file, name, "O", 2)
    is_list = h5py.check_ref_dtype(table.dtype) is h5py.Reference and table.size <= _MAX_WORDS
    references = table[()].ravel() if is_list else [None]
    cells: list[Any] = [file[each] if each else None for each in references]
    if not all(_is_own(each) and each.dtype.kind == "u" for each in cells):
        raise SourceError(f"{_name(file)}: {name} is no list of words")
    if any(each.size > _MAX_LETTERS for each in cells):
        raise SourceError(f"{_name(file)}: {name} has a word of more than {_MAX_LETTERS} letters")
    return ["".join(map(chr, each[()].ravel().tolist())) for each in cells]


def _is_own(array: Any) -> bool:
    """Whether it is an array whose numbers are in this very file."""
    import h5py

    return isinstance(array, h5py.Dataset) and not array.is_virtual and not array.external


def _name(file: Any) -> str:
    return str(file.filename)
