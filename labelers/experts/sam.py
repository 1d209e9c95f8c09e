"""Everything in an image as one mask each, by Segment Anything."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.instances import InstanceLabeler
from fourmill.manifests.hub import HubWeights


class SAM(InstanceLabeler):
    """SAM with a ViT-H, asked at a grid of points: things, and parts of things.

    The network that 4M-21's `sam_instance` was made with.
    """

    spec = LabelerSpec(
        name="sam",
        version=1,
        reads=("rgb",),
        writes=("instances", "sam_instance"),
        alternative=True,
        summary="masks of all things and parts, without names, by SAM ViT-H",
        licence="Apache-2.0",
        citation="Kirillov et al. 2023, Segment anything, arXiv:2304.02643",
        hub=HubWeights("facebook/sam-vit-huge", "87aecf0df4ce6b30cd7de76e87673c49644bdf67"),
        weights_mb=2560,
        resources=Resources(gpus=0.5, memory_gib=10.0, batch_size=4),
    )


LABELER = SAM
