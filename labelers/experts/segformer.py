"""Semantic segmentation into the 150 classes of ADE20K."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.transformers_segmentation import SegmentationLabeler
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.modalities import Kind, Modality, register

register(Modality("semseg_ade20k", Kind.CLASSES, "semseg_ade20k", "png", channels=150))


class SegFormer(SegmentationLabeler):
    """SegFormer-B5 on 640 x 640 pixels: rooms and streets in finer words than COCO's."""

    model = "AutoModelForSemanticSegmentation"
    outputs = ("logits",)

    spec = LabelerSpec(
        name="segformer",
        version=1,
        reads=("rgb",),
        writes=("semseg_ade20k",),
        summary="one of ADE20K's 150 classes a pixel, by SegFormer-B5",
        licence="NVIDIA source code licence for SegFormer: not for commercial use",
        citation="Xie et al. 2021, SegFormer, arXiv:2105.15203",
        hub=HubWeights(
            "nvidia/segformer-b5-finetuned-ade-640-640",
            "f9c3b1ce7ea1e7795e36d28aa2220654f8de78a4",
        ),
        weights_mb=339,
        resources=Resources(gpus=0.25, memory_gib=4.0, batch_size=16),
    )


LABELER = SegFormer
