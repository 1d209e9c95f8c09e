"""Semantic segmentation into the 133 classes of COCO, by the network that 4M's was made with."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.transformers_segmentation import SegmentationLabeler
from fourmill.manifests.hub import HubWeights


class Mask2Former(SegmentationLabeler):
    """Mask2Former with a Swin-B, trained on COCO's panoptic task: 80 things, 53 kinds of stuff.

    Every pixel gets its likeliest class, 0 to 132, as the reference's loader reads them.
    """

    spec = LabelerSpec(
        name="mask2former",
        version=1,
        reads=("rgb",),
        writes=("semseg_coco",),
        summary="one of COCO's 133 classes a pixel, by Mask2Former Swin-B",
        licence="not stated by the weights ('other'); MIT for the code of its authors",
        citation="Cheng et al. 2022, Masked-attention mask transformer, arXiv:2112.01527",
        hub=HubWeights(
            "facebook/mask2former-swin-base-coco-panoptic",
            "853c97b51d851289775a7fcc82208fe10167b8ed",
        ),
        weights_mb=432,
        resources=Resources(gpus=0.4, memory_gib=5.0, batch_size=8),
    )


LABELER = Mask2Former
