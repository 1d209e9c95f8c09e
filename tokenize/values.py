"""Between stored labels and what a VQ network sees: crops, and the normalisation of each kind.

Images, edges and normals become -1..1 (as the published tokenizers have it), and so does the range
of a plane, in which a number means the same everywhere. Class ids are shifted so that 0 is unknown,
feature maps stay as they are. Depth is standardised in each crop by mean and deviation of what is
left without the tenth that is nearest and the tenth that is farthest (the reference's; after MiDaS,
Ranftl et al. 2020): relative depth has no scale of its own.

Shapes: K crops of one label, B crops of many, C channels, S side in pixels or feature cells.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Num, UInt8
from numpy.typing import NDArray
from torch import Tensor

from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.base import CropSettings
from fourmill.tokenize.crops import crop_dense

DEPTH_LIMIT = 5.0
"""Depth beyond as many deviations from the mean is set to it: a window would outweigh a room."""

_TRIMMED = 0.1  # share of the nearest pixels, and of the farthest, without a say in the scale
_BYTES = frozenset({Kind.IMAGE, Kind.EDGE, Kind.NORMAL})
SUPPORTED = _BYTES | {Kind.DEPTH, Kind.PLANE, Kind.CLASSES, Kind.FEATURE_MAP}


def refuse_other_kinds(definition: Modality) -> None:
    """Refuse modalities that no VQ tokenizer is for.

    Raises:
        ConfigError: text, boxes, vectors, …
    """
    if definition.kind not in SUPPORTED or not definition.channels:
        raise ConfigError(
            f"{definition.name}: found {definition.kind.value} of {definition.channels} channels; "
            f"VQ tokenizers are for {', '.join(sorted(SUPPORTED))} with at least one"
        )


def network_inputs(definition: Modality, size: int, patch: int, class_width: int) -> dict[str, Any]:
    """What of a network's configuration follows from what it sees: channels, labels, size, patch.

    Args:
        size: side of a crop in pixels.
        patch: side of a token in pixels.
        class_width: of the embedding of a class.
    """
    is_map = definition.kind is Kind.FEATURE_MAP
    is_classes = definition.kind is Kind.CLASSES
    return {
        "channels": class_width if is_classes else definition.channels,
        "labels": definition.channels + 1 if is_classes else 0,
        "size": size // patch if is_map else size,
        "patch": 1 if is_map else patch,
    }


def cut(
    definition: Modality,
    label: Label,
    crops: CropSettings,
    image_size: tuple[int, int],
    side: int,
) -> Num[np.ndarray, "K ..."]:
    """The crops of a label, as small as they can be kept: the label's own dtype.

    Depth is standardised already.

    Raises:
        SampleError: not a label of this modality.
    """
    check_label(definition, label)
    assert isinstance(label, np.ndarray)
    cropped: NDArray[Any] = crop_dense(label, definition.kind, crops, image_size, side)
    return standardise_depth(cropped) if definition.kind is Kind.DEPTH else cropped


def standardise_depth(
    depth: Float[np.ndarray, "K height width"],
) -> Float[np.ndarray, "K height width"]:
    """Each crop with mean 0 and deviation 1, its extremes aside; at most `DEPTH_LIMIT`."""
    ordered = np.sort(depth.reshape(len(depth), -1).astype(np.float64), axis=1)
    cut_off = int(_TRIMMED * ordered.shape[1])
    middle = ordered[:, cut_off : ordered.shape[1] - cut_off]
    mean = middle.mean(axis=1)[:, None, None]
    deviation = np.sqrt(middle.var(axis=1, ddof=1) + 1e-6)[:, None, None]
    scaled: NDArray[Any] = (depth - mean) / deviation
    return scaled.clip(-DEPTH_LIMIT, DEPTH_LIMIT).astype(np.float32)


def standardised(depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """What a tokenizer sees of depth that one gave back (`to_labels`), whose mean is a half."""
    values: NDArray[Any] = (depth - 0.5) * (2 * DEPTH_LIMIT)
    return values.clip(-DEPTH_LIMIT, DEPTH_LIMIT).astype(np.float32)


def to_tensor(
    definition: Modality, crops: NDArray[np.generic] | Tensor
) -> Float[Tensor, "B C S S"] | Int[Tensor, "B S S"]:
    """What the network sees of crops that `cut` made; ids of classes from 1, unknown 0."""
    tensor = torch.as_tensor(crops)
    if definition.kind is Kind.CLASSES:
        ids = tensor.long()
        return torch.where(ids == UNKNOWN_CLASS, 0, ids + 1)
    if definition.value_range is not None:
        low, high = definition.value_range
        return (tensor.float()[:, None] - low) * (2 / (high - low)) - 1
    if definition.kind not in _BYTES:
        return tensor.float() if tensor.ndim == 4 else tensor.float()[:, None]
    # channels stay last in memory, which spares this and what reads patches a copy
    values = tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor[:, None]
    return (values / 127.5).sub_(1)


def to_labels(definition: Modality, values: Float[Tensor, "B C S S"]) -> list[Label]:
    """Labels of what the network gave back; the inverse of `to_tensor`, clipped to what is valid.

    Depth has lost its scale: 0..1, the crop's mean at a half.
    """
    array = values.float().cpu().numpy()
    if definition.value_range is not None:
        return [each.copy() for each in _to_plane(array, *definition.value_range)]
    return [each.copy() for each in _INVERSES[definition.kind](array)]


def refuse_classes(
    definition: Modality, classes: UInt8[np.ndarray, "K S S"], num_classes: int
) -> None:
    """Refuse class ids that the network has no embedding for.

    Raises:
        SampleError: the largest id found.
    """
    largest = int(np.where(classes == UNKNOWN_CLASS, 0, classes).max())
    if largest >= num_classes:
        raise SampleError(
            definition.name, f"found class {largest}, the tokenizer knows 0 to {num_classes - 1}"
        )


def _to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    scaled: NDArray[np.float32] = 127.5 * (values + 1)
    return scaled.clip(0, 255).round().astype(np.uint8)


def _to_image(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return _to_bytes(values).transpose(0, 2, 3, 1)


def _to_edges(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return _to_bytes(values[:, 0])


def _to_normals(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    length = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return _to_image(np.where(length > 0.5, values / np.maximum(length, 0.5), 0))


def _to_depth(values: NDArray[np.float32]) -> NDArray[np.float32]:
    depth: NDArray[np.float32] = 0.5 + values[:, 0] / (2 * DEPTH_LIMIT)
    return depth.clip(0, 1)


def _to_plane(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    shares = (values[:, 0].astype(np.float64) + 1) / 2
    return (low + shares.clip(0, 1) * (high - low)).astype(np.float32)


def _to_classes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    ids = values.argmax(axis=1)
    return np.where(ids == 0, UNKNOWN_CLASS, ids - 1).astype(np.uint8)


def _to_features(values: NDArray[np.float32]) -> NDArray[np.float16]:
    limit = float(np.finfo(np.float16).max)
    return np.clip(values, -limit, limit).astype(np.float16)


_INVERSES: dict[Kind, Callable[[NDArray[np.float32]], NDArray[np.generic]]] = {
    Kind.IMAGE: _to_image,
    Kind.EDGE: _to_edges,
    Kind.NORMAL: _to_normals,
    Kind.DEPTH: _to_depth,
    Kind.CLASSES: _to_classes,
    Kind.FEATURE_MAP: _to_features,
}
