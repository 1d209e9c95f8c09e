"""Where people's joints are, by ViTPose."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label

_PERSON_SCORE = 0.5
_COCO = 0  # which of ViTPose+'s experts: the one that was trained on COCO

KEYPOINTS = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder",
    "left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee",
    "right knee", "left ankle", "right ankle",
)  # fmt: skip
"""COCO's, in their order."""


class ViTPose(Labeler):
    """For each person of `det`: box, score, and 17 of `[x, y, score]` in shares of the image.

    Keypoints in the plane: 4M-21's `human_poses` are parameters of a body model (4D-Humans), which
    cannot be had from them.
    """

    spec = LabelerSpec(
        name="vitpose",
        version=1,
        reads=("rgb", "det"),
        writes=("human_keypoints",),
        summary="17 keypoints of every person that the detector found, by ViTPose+ (ViT-B)",
        licence="Apache-2.0",
        citation="Xu et al. 2022, ViTPose, arXiv:2204.12484; ViTPose++, arXiv:2212.04246",
        hub=HubWeights("usyd-community/vitpose-plus-base"),
        resources=Resources(gpus=0.25, memory_gib=2.0, batch_size=32),
    )

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(self.spec, device, "VitPoseForPoseEstimation")

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        people = [_people(sample) for sample in batch]
        crops = [
            crop
            for sample, boxes in zip(batch, people, strict=True)
            for crop in self._crops(sample, boxes)
        ]
        heatmaps = iter(self._network.run(crops, self._forward))
        return [
            {"human_keypoints": self._poses(sample, boxes, [next(heatmaps) for _ in boxes])}
            for sample, boxes in zip(batch, people, strict=True)
        ]

    def _crops(self, sample: Sample, people: list[dict[str, Any]]) -> list[Tensors]:
        """What the network sees of each person."""
        if not people:
            return []
        found = self._network.processor(
            images=np.array(sample["rgb"]), boxes=[_corners(sample, people)], return_tensors="pt"
        )
        return [{"pixel_values": each.to(self._network.device)} for each in found["pixel_values"]]

    def _forward(self, batch: Tensors) -> list[Any]:
        torch, pixels = self._network.torch, batch["pixel_values"]
        which = torch.full((len(pixels),), _COCO, device=pixels.device)
        return [*self._network.model(pixels, dataset_index=which).heatmaps.float()]

    def _poses(self, sample: Sample, people: list[dict[str, Any]], heatmaps: list[Any]) -> Label:
        if not people:
            return {"instances": []}
        height, width = sample["rgb"].shape[:2]
        (found,) = self._network.processor.post_process_pose_estimation(
            SimpleNamespace(heatmaps=self._network.torch.stack(heatmaps)),
            boxes=[_corners(sample, people)],
        )
        return {
            "instances": [
                person | {"keypoints": _shares(pose["keypoints"], pose["scores"], width, height)}
                for person, pose in zip(people, found, strict=True)
            ]
        }


def _people(sample: Sample) -> list[dict[str, Any]]:
    return [
        {name: each[name] for name in ("boxes", "class_name", "score")}
        for each in sample["det"]["instances"]
        if each["class_name"] == "person" and each["score"] >= _PERSON_SCORE
    ]


def _corners(sample: Sample, people: list[dict[str, Any]]) -> list[list[float]]:
    """Left, top, width, height in pixels, as COCO has boxes; at least one pixel a side."""
    height, width = sample["rgb"].shape[:2]
    boxes = [
        np.array(each["boxes"], np.float64) * [width, height, width, height] for each in people
    ]
    return [[x0, y0, max(x1 - x0, 1.0), max(y1 - y0, 1.0)] for x0, y0, x1, y1 in boxes]


def _shares(points: Any, scores: Any, width: int, height: int) -> list[list[float]]:
    places = np.clip(points.numpy() / [width, height], 0, 1)
    rows = np.column_stack([places, np.clip(scores.numpy().reshape(-1), 0, 1)])
    return [[round(float(each), 4) for each in row] for row in rows]


LABELER = ViTPose
