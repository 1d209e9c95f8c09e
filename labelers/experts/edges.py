"""Edges by Canny: nothing to download, and a target that is exact to predict."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.sizes import shrunk
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_AREA = 224 * 224
_SIGMA = 1.4
_LOW, _HIGH = 0.67, 1.33  # thresholds in medians of the gradient's magnitude over textured pixels


class CannyEdges(Labeler):
    """0 or 255, at about 224 x 224 pixels: finer edges would not fit a grid of 14 x 14 tokens.

    The thresholds follow the image's own contrast. Foliage and grass are noisy; `hed` is better,
    and a hundred times as slow.
    """

    spec = LabelerSpec(
        name="edges",
        version=1,
        reads=("rgb",),
        writes=("canny_edge",),
        summary="edges by Canny, with thresholds that follow the image's contrast",
        licence="Apache-2.0 (OpenCV)",
        citation="Canny 1986, A computational approach to edge detection",
        resources=Resources(memory_gib=0.3, batch_size=64),
    )

    def load(self, device: str) -> None:
        """Nothing to load."""

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"canny_edge": canny(shrunk(sample["rgb"], _AREA))} for sample in batch]


def canny(rgb: UInt8[np.ndarray, "H W 3"], sigma: float = _SIGMA) -> UInt8[np.ndarray, "H W"]:
    """255 on edges, 0 elsewhere.

    Args:
        sigma: of the smoothing before, in pixels.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    strength = np.hypot(dx.astype(np.float32), dy.astype(np.float32))
    # of flat walls and skies the median would be next to nothing, and every grain an edge
    textured = strength[strength > 8]
    median = float(np.median(textured)) if textured.size else 8.0
    edges: NDArray[Any] = cv2.Canny(dx, dy, _LOW * median, _HIGH * median, L2gradient=True)
    return edges


LABELER = CannyEdges
