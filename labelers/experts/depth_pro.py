"""Depth by Depth Pro: metres, with sharp outlines, brought to relative depth."""

import numpy as np
from jaxtyping import Float32

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.transformers_depth import DepthLabeler
from fourmill.manifests.hub import HubWeights


class DepthPro(DepthLabeler):
    """Two ViT-L on patches of 1536 x 1536 pixels; the sharpest, and by far the slowest.

    It predicts metres. They are stored as relative depth like those of all other experts, so that
    one may stand for another.
    """

    spec = LabelerSpec(
        name="depth-pro",
        version=1,
        reads=("rgb",),
        writes=("depth",),
        alternative=True,
        summary="relative depth, 0 near to 1 far, from the metres of Depth Pro",
        licence="Apache-2.0 (code of transformers); Apple model licence for research (weights)",
        citation="Bochkovskii et al. 2024, Depth Pro, arXiv:2410.02073",
        hub=HubWeights("apple/DepthPro-hf"),
        weights_mb=1900,
        resources=Resources(gpus=0.5, memory_gib=10.0, batch_size=4),
    )

    def disparity(self, predicted: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
        return 1 / predicted  # post-processing keeps it above 1e-4 m


LABELER = DepthPro
