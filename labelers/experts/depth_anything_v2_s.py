"""Relative depth by Depth Anything V2 Small."""

from fourmill.labelers.base import Resources
from fourmill.labelers.depth_anything import depth_anything_spec
from fourmill.labelers.transformers_depth import DepthLabeler


class DepthAnythingV2Small(DepthLabeler):
    """The smallest, and the only one that may be used commercially: a ViT-S/14 on 518 pixels."""

    spec = depth_anything_spec(
        "Small",
        revision="870a35c76c2bc1d82fbde922d95015496cb7dd6c",
        weights_mb=99,
        licence="Apache-2.0",
        resources=Resources(gpus=0.1, memory_gib=2.0, batch_size=32),
    )


LABELER = DepthAnythingV2Small
