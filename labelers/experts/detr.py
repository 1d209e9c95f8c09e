"""Boxes of the 80 things of COCO by DETR, the first detector that is one transformer."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.detectors import CocoDetector
from fourmill.manifests.hub import HubWeights


class Detr(CocoDetector):
    """DETR with a ResNet-50: sure of large things, weak on small ones."""

    threshold = 0.7  # its scores are a softmax over classes, and high
    spec = LabelerSpec(
        name="detr",
        version=1,
        reads=("rgb",),
        writes=("det",),
        alternative=True,
        summary="boxes of COCO's 80 things with scores, by DETR (ResNet-50)",
        licence="Apache-2.0",
        citation="Carion et al. 2020, End-to-end object detection, arXiv:2005.12872",
        hub=HubWeights("facebook/detr-resnet-50", "1d5f47bd3bdd2c4bbfa585418ffe6da5028b4c0b"),
        weights_mb=167,
        resources=Resources(gpus=0.25, memory_gib=3.0, batch_size=8),
    )


LABELER = Detr
