"""Boxes of the 80 things of COCO by ViTDet ViT-H with Cascade Mask R-CNN: 4M's own detector."""

from typing import Any

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.detectron import LICENCE, PROJECT, DetectronLabeler, Network

_SIDE = 1024  # pixels of the longer side; the networks were trained on such squares
_GLOBAL_BLOCKS = (7, 15, 23, 31)
_STAGES = ((10, 5), (20, 10), (30, 15))  # of the cascade: weights of a box's place and size


class ViTDet(DetectronLabeler):
    """Slow and exact: 58.7 box AP on COCO, by its authors."""

    checkpoint = "ViTDet/COCO/cascade_mask_rcnn_vitdet_h/f328730692/model_final_f05665.pkl"
    spec = LabelerSpec(
        name="vitdet",
        version=1,
        reads=("rgb",),
        writes=("det",),
        alternative=True,
        summary="boxes of COCO's 80 things with scores, by ViTDet ViT-H and Cascade Mask R-CNN",
        licence=LICENCE,
        citation=f"Li et al. 2022, Exploring plain vision transformer backbones for object "
        f"detection, arXiv:2203.16527; {PROJECT}",
        weights=f"detectron2's project ViTDet {checkpoint}",
        requires={"detectron2": "detectron2"},
        resources=Resources(gpus=1.0, memory_gib=10.0, batch_size=2),
    )

    def build(self) -> Network:
        from detectron2 import model_zoo
        from detectron2.config import instantiate

        config = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
        _make_huge(config.backbone.net)
        _make_cascade(config.roi_heads)
        return Network(instantiate(config), shortest=_SIDE, longest=_SIDE, is_bgr=False)


def _make_huge(vit: Any) -> None:
    """ViT-H, which attends globally in four blocks of 32 and in windows in the others."""
    vit.embed_dim, vit.depth, vit.num_heads = 1280, 32, 16
    vit.drop_path_rate = 0.0
    vit.window_block_indexes = [block for block in range(32) if block not in _GLOBAL_BLOCKS]


def _make_cascade(heads: Any) -> None:
    """Three heads in a row, each refining the boxes of the one before."""
    from detectron2.config import LazyCall
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.roi_heads import (
        CascadeROIHeads,
        FastRCNNConvFCHead,
        FastRCNNOutputLayers,
    )

    for name in ("box_head", "box_predictor", "proposal_matcher"):
        heads.pop(name)
    heads._target_ = CascadeROIHeads
    heads.box_heads = [
        LazyCall(FastRCNNConvFCHead)(
            input_shape=ShapeSpec(channels=256, height=7, width=7),
            conv_dims=[256] * 4,
            fc_dims=[1024],
            conv_norm="LN",
        )
        for _ in _STAGES
    ]
    heads.box_predictors = [
        LazyCall(FastRCNNOutputLayers)(
            input_shape=ShapeSpec(channels=1024),
            test_score_thresh=0.05,
            box2box_transform=LazyCall(Box2BoxTransform)(weights=(place, place, size, size)),
            cls_agnostic_bbox_reg=True,
            num_classes="${...num_classes}",
        )
        for place, size in _STAGES
    ]
    heads.proposal_matchers = [  # of training; the class asks for them all the same
        LazyCall(Matcher)(thresholds=[share], labels=[0, 1], allow_low_quality_matches=False)
        for share in (0.5, 0.6, 0.7)
    ]


LABELER = ViTDet
