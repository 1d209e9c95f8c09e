"""Everything in an image as one mask each, by Segment Anything 2."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.instances import InstanceLabeler
from fourmill.manifests.hub import HubWeights


class SAM2(InstanceLabeler):
    """SAM 2.1 with Hiera-L, asked at a grid of points: a successor of SAM, and faster."""

    spec = LabelerSpec(
        name="sam2",
        version=1,
        reads=("rgb",),
        writes=("instances", "sam_instance"),
        summary="masks of all things and parts, without names, by SAM 2.1 Hiera-L",
        licence="Apache-2.0",
        citation="Ravi et al. 2024, SAM 2, arXiv:2408.00714",
        hub=HubWeights("facebook/sam2.1-hiera-large", "665f8e2ad61cf5f53d65644ff27c8ee525124610"),
        weights_mb=898,
        resources=Resources(gpus=0.5, memory_gib=8.0, batch_size=4),
    )


LABELER = SAM2
