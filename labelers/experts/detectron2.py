"""Boxes of the 80 things of COCO by a network of detectron2's model zoo."""

from typing import ClassVar

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.detectron import LICENCE, PROJECT, DetectronLabeler, Network


class ModelZoo(DetectronLabeler):
    """Faster R-CNN with a ResNeXt-101 and a feature pyramid.

    Another one of the zoo is a class with another `config` and its `checkpoint`, as
    detectron2's MODEL_ZOO.md lists them; any that was trained on COCO's things will do.

    Attributes:
        config: its name in the zoo.
    """

    config: ClassVar[str] = "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml"
    checkpoint = "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x/139173657/model_final_68b088.pkl"
    spec = LabelerSpec(
        name="detectron2",
        version=1,
        reads=("rgb",),
        writes=("det",),
        alternative=True,
        summary="boxes of COCO's 80 things with scores, by Faster R-CNN (ResNeXt-101)",
        licence=LICENCE,
        citation=f"{PROJECT}; Ren et al. 2015, Faster R-CNN, arXiv:1506.01497",
        weights=f"detectron2's model zoo {checkpoint}",
        requires={"detectron2": "detectron2"},
        resources=Resources(gpus=0.5, memory_gib=5.0, batch_size=4),
    )

    def build(self) -> Network:
        from detectron2 import model_zoo
        from detectron2.modeling import build_model

        config = model_zoo.get_config(self.config)
        config.MODEL.DEVICE = "cpu"
        config.MODEL.WEIGHTS = ""
        sizes = config.INPUT
        return Network(
            build_model(config),
            shortest=sizes.MIN_SIZE_TEST,
            longest=sizes.MAX_SIZE_TEST,
            is_bgr=sizes.FORMAT == "BGR",
        )


LABELER = ModelZoo
