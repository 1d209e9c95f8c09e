"""Labels that lie beside pictures: `a/b.thermal.npy` is the label `thermal` of `a/b.jpg`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError
from fourmill.manifests.images import read_png
from fourmill.manifests.label_checks import find_problem
from fourmill.manifests.labels import Label, decode_label, image_size
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.npy import decode_npy
from fourmill.pipeline.sources.formats import as_supported

_NPY = ("npy",)
_PNG = ("npy", "png")
EXTENSIONS: Mapping[Kind, Sequence[str]] = {
    Kind.IMAGE: ("npy", "png", "jpg", "webp"),
    Kind.EDGE: _PNG,
    Kind.DEPTH: _PNG,
    Kind.NORMAL: _PNG,
    Kind.PLANE: _PNG,
    Kind.CLASSES: _PNG,
    Kind.INSTANCES: _PNG,
    Kind.FEATURE_MAP: _NPY,
    Kind.VECTOR: _NPY,
    Kind.SEQUENCE: ("npy", "npz"),
    Kind.TEXT: ("txt",),
    Kind.BOXES: ("json",),
    Kind.STRUCTURE: ("json",),
}
"""Of the files that a label may be, the first that is there is taken."""

_FLOATS: Mapping[Kind, type[np.floating[Any]]] = {
    Kind.DEPTH: np.float32, Kind.PLANE: np.float32, Kind.FEATURE_MAP: np.float16,
    Kind.VECTOR: np.float32, Kind.SEQUENCE: np.float16,
}  # fmt: skip
_BY_PIXEL = frozenset({
    Kind.IMAGE, Kind.EDGE, Kind.DEPTH, Kind.NORMAL, Kind.PLANE, Kind.CLASSES, Kind.INSTANCES,
})  # fmt: skip
_TOLERANCE = 0.02  # of the proportions, beside a pixel: labels are rounded to whole ones


def endings(definition: Modality) -> list[str]:
    """How the names of its files may end.

    >>> from fourmill.manifests.modalities import modality
    >>> endings(modality("depth"))
    ['.depth.npy', '.depth.png']
    """
    return [f".{definition.name}.{each}" for each in EXTENSIONS.get(definition.kind, ())]


def read_labels(
    definitions: Collection[Modality],
    find: Callable[[str], tuple[str, bytes] | SampleError | None],
    image: bytes,
) -> dict[str, Label | SampleError]:
    """The labels of one picture, or what is wrong with each; those that are not there are left out.

    Args:
        find: the name and content of the file with some ending, if it is there.
        image: the picture's bytes.
    """
    labels: dict[str, Label | SampleError] = {}
    for each in definitions:
        found = next((file for ending in endings(each) if (file := find(ending))), None)
        if isinstance(found, SampleError):
            labels[each.name] = found
        elif found is not None:
            labels[each.name] = checked(each, found[0], image, partial(_read, each, *found))
    return labels


def checked(
    definition: Modality, file: str, image: bytes, read: Callable[[], Label]
) -> Label | SampleError:
    """What `read` returns, or what is wrong with it: of another type, range or proportions than
    the modality and the picture ask for, or not readable at all.

    Args:
        file: where the label comes from, for messages.
        image: the picture's bytes.
        read: may raise SampleError or ValueError.
    """
    try:
        label = read()
        problem = find_problem(definition, label) or _shape_problem(definition, label, image)
    except SampleError as error:
        problem = error.reason
    except ValueError as error:
        problem = f"not readable as {definition.kind.value}: {error}"
    return SampleError(definition.name, f"{file}: {problem}") if problem else label


def _read(definition: Modality, file: str, data: bytes) -> Label:
    if file.endswith(".npy"):
        return _as_kind(definition.kind, decode_npy(data))
    if definition.kind is Kind.PLANE:
        # the numbers themselves: nobody else's pictures know the range that ours are stored in
        return read_png(data).astype(np.float32)
    return decode_label(definition, data)


def _as_kind(kind: Kind, array: NDArray[Any]) -> NDArray[Any]:
    """Floating-point numbers of any width, and whole numbers where they are read as such."""
    wanted = _FLOATS.get(kind)
    if wanted is None or array.dtype.kind not in "fiu":
        return array
    with np.errstate(over="ignore"):  # what is too large is not finite, and refused as such
        return array.astype(wanted)


def _shape_problem(definition: Modality, label: Label, image: bytes) -> str | None:
    """Whether a label of pixels has other proportions than the picture that it is to cover."""
    if definition.kind not in _BY_PIXEL:
        return None
    assert isinstance(label, np.ndarray)
    rows, columns = label.shape[:2]
    try:
        height, width = image_size(as_supported(image))
    except SampleError:
        return None  # the picture itself is refused, and its labels with it
    # one side at the other's scale, within a pixel of the label
    off = min(abs(rows - height * columns / width), abs(columns - width * rows / height))
    if off <= 1 + _TOLERANCE * max(rows, columns):
        return None
    return (
        f"found {rows} x {columns} places, expected the proportions of the picture, "
        f"{height} x {width}: a label covers all of it"
    )
