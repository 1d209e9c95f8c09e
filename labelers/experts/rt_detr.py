"""Boxes of the 80 things of COCO by RT-DETR: the best that runs at the speed of images."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.detectors import CocoDetector
from fourmill.manifests.hub import HubWeights


class RTDetr(CocoDetector):
    """RT-DETR with a ResNet-101, trained on Objects365 and COCO."""

    spec = LabelerSpec(
        name="rt-detr",
        version=1,
        reads=("rgb",),
        writes=("det",),
        alternative=True,
        summary="boxes of COCO's 80 things with scores, by RT-DETR (ResNet-101)",
        licence="Apache-2.0",
        citation="Zhao et al. 2024, DETRs beat YOLOs on real-time detection, arXiv:2304.08069",
        hub=HubWeights("PekingU/rtdetr_r101vd_coco_o365"),
        weights_mb=307,
        resources=Resources(gpus=0.25, memory_gib=3.0, batch_size=16),
    )


LABELER = RTDetr
