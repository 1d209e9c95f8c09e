"""Relative depth by Depth Anything V2 Base."""

from fourmill.labelers.base import Resources
from fourmill.labelers.depth_anything import depth_anything_spec
from fourmill.labelers.transformers_depth import DepthLabeler


class DepthAnythingV2Base(DepthLabeler):
    """A ViT-B/14 on 518 pixels of the short side."""

    spec = depth_anything_spec(
        "Base",
        revision="b1958afc87fb45a9e3746cb387596094de553ed8",
        weights_mb=390,
        licence="CC-BY-NC-4.0",
        resources=Resources(gpus=0.2, memory_gib=3.0, batch_size=16),
    )


LABELER = DepthAnythingV2Base
