"""Where two labels of one picture differ, as a picture."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fourmill.manifests import dense_agreement as dense
from fourmill.manifests.cards import missing_card
from fourmill.manifests.colouring import share_colours
from fourmill.manifests.framing import frame_of, placed, resized
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.resampling import averaged, nearest

_RIGHT_ANGLE = 90.0


def difference(
    before: Modality,
    one: Label | None,
    after: Modality,
    other: Label | None,
    size: int,
    image: NDArray[Any],
) -> UInt8[np.ndarray, "size size 3"]:
    """A square picture that is dark where two labels of a dense modality agree, bright elsewhere.

    Args:
        size: pixels of a side.
        image: uint8 `[H, W, 3]`, whose proportions the picture takes.
    """
    if one is None or other is None:
        return missing_card(size)
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    colours = share_colours(difference_map(before, one, after, other))
    frame = frame_of(image, size)
    return placed(resized(colours, frame, is_blocky=True), frame, size)


def difference_map(
    before: Modality, one: NDArray[Any], after: Modality, other: NDArray[Any]
) -> NDArray[np.float64]:
    """How far two labels of a dense modality differ at each place, 0 to 1.

    Of depth after scale and shift and of planes, in shares of their range; of normals in right
    angles; of features as 1 - cosine; of edges 1 where the other has none nearby.
    """
    match before.kind:
        case Kind.DEPTH:
            ours, theirs = (each.astype(np.float64) for each in averaged(one, other))
            low, high = np.percentile(ours, (2, 98))
            found = np.abs(dense.fit(ours, theirs) - ours) / max(high - low, 1e-9)
        case Kind.PLANE:
            ours, theirs = (each.astype(np.float64) for each in averaged(one, other))
            low, high = np.percentile(ours, (2, 98))
            found = np.abs(ours - theirs) / max(high - low, 1e-9)
        case Kind.NORMAL:
            found = np.nan_to_num(dense.angles(one, other)) / _RIGHT_ANGLE
        case Kind.CLASSES:
            ours, theirs = dense.common_classes(before, one, after, other)
            found = (ours != theirs).astype(np.float64)
        case Kind.INSTANCES:
            ours, theirs = nearest(one, other)
            found = ((ours > 0) != (theirs > 0)).astype(np.float64)
        case Kind.EDGE:
            alone = [each for _, each in dense.edge_maps(one, other)]
            found = np.logical_or(*alone).astype(np.float64)
        case Kind.FEATURE_MAP:
            found = 1 - dense.cosine_map(one, other)
        case _:
            ours, theirs = (each.astype(np.float64) for each in averaged(one, other))
            found = np.abs(ours - theirs).reshape(*ours.shape[:2], -1).mean(axis=-1) / 255
    return np.asarray(np.clip(found, 0, 1), np.float64)
