"""Depth Anything V2 in its three sizes, which differ in nothing else."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.manifests.hub import HubWeights

CITATION = "Yang et al. 2024, Depth Anything V2, arXiv:2406.09414"


def depth_anything_spec(
    size: str, revision: str, weights_mb: int, licence: str, resources: Resources
) -> LabelerSpec:
    """The spec of one size (`Small`, `Base` or `Large`)."""
    return LabelerSpec(
        name=f"depth-anything-v2-{size[0].lower()}",
        version=1,
        reads=("rgb",),
        writes=("depth",),
        alternative=True,
        summary=f"relative depth, 0 near to 1 far, by Depth Anything V2 {size}",
        licence=licence,
        citation=CITATION,
        hub=HubWeights(f"depth-anything/Depth-Anything-V2-{size}-hf", revision),
        weights_mb=weights_mb,
        resources=resources,
    )
