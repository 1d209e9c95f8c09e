"""Relative depth by DPT, the architecture that 4M's depth was made with."""

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.transformers_depth import DepthLabeler
from fourmill.manifests.hub import HubWeights


class DPT(DepthLabeler):
    """DPT-Hybrid (ViT-B and ResNet-50) trained on MiDaS' mixture of datasets.

    4M's own was trained on Omnidata instead; those weights are in no form that loads without
    running their authors' code.
    """

    spec = LabelerSpec(
        name="dpt",
        version=1,
        reads=("rgb",),
        writes=("depth",),
        alternative=True,
        summary="relative depth, 0 near to 1 far, by DPT-Hybrid (MiDaS 3.0)",
        licence="Apache-2.0",
        citation="Ranftl et al. 2021, Vision transformers for dense prediction, arXiv:2103.13413",
        hub=HubWeights("Intel/dpt-hybrid-midas", "11eaf7a1cf4bd70740697dbc216f98980c0aeb03"),
        weights_mb=490,
        resources=Resources(gpus=0.25, memory_gib=3.0, batch_size=16),
    )


LABELER = DPT
