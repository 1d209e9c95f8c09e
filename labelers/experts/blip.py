"""Captions by BLIP: one short sentence, as people wrote them for COCO."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.captioners import Captioner
from fourmill.manifests.hub import HubWeights


class BLIP(Captioner):
    """BLIP with a ViT-L, tuned on COCO's captions."""

    model = "BlipForConditionalGeneration"
    spec = LabelerSpec(
        name="blip",
        version=1,
        reads=("rgb",),
        writes=("caption_blip",),
        summary="a short caption, by BLIP (ViT-L)",
        licence="BSD-3-Clause",
        citation="Li et al. 2022, BLIP, arXiv:2201.12086",
        hub=HubWeights(
            "Salesforce/blip-image-captioning-large", "353689b859fcf0523410b1806dace5fb46ecdf41"
        ),
        weights_mb=1_880,
        resources=Resources(gpus=0.25, memory_gib=4.0, batch_size=16),
    )


LABELER = BLIP
