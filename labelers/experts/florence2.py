"""Captions by Florence-2: a paragraph by a small network that was trained on much."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.captioners import Captioner
from fourmill.manifests.hub import HubWeights


class Florence2(Captioner):
    """Florence-2 large in the form that transformers reads itself, without its authors' code."""

    model = "Florence2ForConditionalGeneration"
    prompt = "<MORE_DETAILED_CAPTION>"
    most_word_pieces = 250  # `caption` holds 256
    spec = LabelerSpec(
        name="florence2",
        version=1,
        reads=("rgb",),
        writes=("caption_florence2",),
        summary="a caption of some sentences, by Florence-2 large",
        licence="MIT",
        citation="Xiao et al. 2023, Florence-2, arXiv:2311.06242",
        hub=HubWeights("florence-community/Florence-2-large"),
        resources=Resources(gpus=0.25, memory_gib=4.0, batch_size=16),
    )


LABELER = Florence2
