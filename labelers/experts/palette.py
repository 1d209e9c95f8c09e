"""Colour palettes: one to seven colours that stand for an image."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.sizes import resized
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

MAX_COLOURS = 7
_SIDE = 48
_ROUNDS = 12


class Palette(Labeler):
    """k-means in CIELAB for each number of colours, the most frequent colour first.

    Started from farthest points instead of from chance, so that it is the same everywhere. An image
    of fewer colours repeats its rarest.
    """

    spec = LabelerSpec(
        name="palette",
        version=1,
        reads=("rgb",),
        writes=("color_palette",),
        summary='palettes of 1 to 7 colours, as 4M-21 reads them: [{"1": [[r, g, b]], …}]',
        licence="Apache-2.0",
        citation="Bachmann et al. 2024, 4M-21, arXiv:2406.09406 (the modality)",
        resources=Resources(memory_gib=0.3, batch_size=64),
    )

    def load(self, device: str) -> None:
        """Nothing to load."""

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"color_palette": [palettes(sample["rgb"])]} for sample in batch]


def palettes(rgb: UInt8[np.ndarray, "H W 3"]) -> dict[str, list[list[int]]]:
    """For every number of colours, as many RGB triples, 0..255."""
    small = resized(rgb, _SIDE, _SIDE).astype(np.float32) / 255
    points = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    starts = _farthest_points(points)
    found = {}
    for count in range(1, MAX_COLOURS + 1):
        centres = _k_means(points, starts[:count])
        colours = cv2.cvtColor(centres[None], cv2.COLOR_LAB2RGB)[0]
        found[str(count)] = (np.clip(colours, 0, 1) * 255).round().astype(int).tolist()
    return found


def _farthest_points(points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "k 3"]:
    """The mean, then again and again the point that is farthest from those chosen.

    Distances are weighed by how many points are near, or else specks would be chosen first.
    """
    chosen = [points.mean(axis=0)]
    distance = np.square(points - chosen[0]).sum(axis=1)
    while len(chosen) < MAX_COLOURS:
        # the mean of the farthest twentieth is robust against a single odd pixel
        far = np.argsort(distance, kind="stable")[-len(points) // 20 :]
        chosen.append(points[far].mean(axis=0))
        distance = np.minimum(distance, np.square(points - chosen[-1]).sum(axis=1))
    return np.stack(chosen)


def _k_means(
    points: Float32[np.ndarray, "n 3"], centres: Float32[np.ndarray, "k 3"]
) -> Float32[np.ndarray, "k 3"]:
    """Lloyd's algorithm; the centres in the order of how many points they stand for."""
    for _ in range(_ROUNDS):
        # |p - c|² without |p|², which is the same for all centres
        distance = np.square(centres).sum(axis=1) - 2 * points @ centres.T
        nearest = distance.argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.stack(
            [np.bincount(nearest, points[:, axis], len(centres)) for axis in range(3)], axis=1
        )
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        centres = moved.astype(np.float32)
    order = np.argsort(-counts, kind="stable")
    # a centre that stands for nothing would be a colour that is not there
    last = order[counts[order] > 0][-1]
    return centres[np.where(counts[order] > 0, order, last)]


LABELER = Palette
