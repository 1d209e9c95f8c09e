"""Relative depth by Depth Anything V2 Large."""

from fourmill.labelers.base import Resources
from fourmill.labelers.depth_anything import depth_anything_spec
from fourmill.labelers.transformers_depth import DepthLabeler


class DepthAnythingV2Large(DepthLabeler):
    """The best depth of this catalogue: a ViT-L/14 on 518 pixels of the short side."""

    spec = depth_anything_spec(
        "Large",
        revision="7581137eff8d4e94f6e796d3baea0e9fa79b22d2",
        weights_mb=1341,
        licence="CC-BY-NC-4.0",
        resources=Resources(gpus=0.4, memory_gib=6.0, batch_size=16),
    )


LABELER = DepthAnythingV2Large
