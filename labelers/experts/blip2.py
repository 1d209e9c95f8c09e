"""Captions by BLIP-2: a short sentence by a language model that sees through 32 vectors."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.captioners import Captioner
from fourmill.manifests.hub import HubWeights


class BLIP2(Captioner):
    """BLIP-2 with Flan-T5 XL, whose licence is free; that of the variants with OPT is not."""

    model = "Blip2ForConditionalGeneration"
    prompt = "a photo of"  # of the authors' captioning
    half = "bfloat16"  # T5's activations are beyond the range of float16
    spec = LabelerSpec(
        name="blip2",
        version=1,
        reads=("rgb",),
        writes=("caption_blip2",),
        summary="a short caption, by BLIP-2 (ViT-g, Flan-T5 XL)",
        licence="MIT (BLIP-2); Apache-2.0 (Flan-T5)",
        citation="Li et al. 2023, BLIP-2, arXiv:2301.12597",
        hub=HubWeights("Salesforce/blip2-flan-t5-xl", "0eb0d3b46c14c1f8c7680bca2693baafdb90bb28"),
        weights_mb=15_800,
        resources=Resources(gpus=0.5, memory_gib=18.0, batch_size=16),
    )


LABELER = BLIP2
