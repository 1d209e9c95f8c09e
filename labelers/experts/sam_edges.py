"""Edges of things and parts, from the masks of Segment Anything."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.edge_thinning import thinned
from fourmill.labelers.mask_proposals import MaskProposer
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label


class SAMEdges(Labeler):
    """0 to 255: how steeply the masks' probabilities rise at their outlines, the most of all masks.

    The recipe is that of SAM's authors for edge detection: all masks of 16 x 16 points but doubles,
    Sobel's filter, only outlines, thinned, stretched.
    """

    points = 16  # on each side of the grid

    spec = LabelerSpec(
        name="sam-edges",
        version=1,
        reads=("rgb",),
        writes=("sam_edge",),
        summary="edges of things and parts, from the masks of SAM ViT-H",
        licence="Apache-2.0",
        citation="Kirillov et al. 2023, Segment anything, arXiv:2304.02643 (its edge detection)",
        hub=HubWeights("facebook/sam-vit-huge", "87aecf0df4ce6b30cd7de76e87673c49644bdf67"),
        weights_mb=2560,
        resources=Resources(gpus=0.5, memory_gib=10.0, batch_size=4),
    )

    def load(self, device: str) -> None:
        self._proposer = MaskProposer(self.spec, device, self.points)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"sam_edge": self._edges(sample["rgb"])} for sample in batch]

    def _edges(self, rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
        strongest = np.zeros(rgb.shape[:2], np.float32)
        for probability in self._proposer.probabilities(rgb):
            np.maximum(strongest, outline(probability.numpy()), out=strongest)
        edges = thinned(strongest)
        grey: UInt8[np.ndarray, "H W"]
        grey = np.rint(255 * edges / max(float(edges.max()), 1e-6)).astype(np.uint8)
        return grey


def outline(probability: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """The slope of a mask's probability along its outline, 0 elsewhere."""
    mask = (probability > 0.5).astype(np.uint8)
    border = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    dx, dy = (cv2.Sobel(probability, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    slope: Float32[np.ndarray, "H W"] = np.hypot(dx, dy) * border
    return slope


LABELER = SAMEdges
