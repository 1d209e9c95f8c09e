"""Detectors of transformers: pixels in, boxes out, by the networks' own post-processing."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.boxes import boxes_label
from fourmill.labelers.coco import COCO_NAMES
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class CocoDetector(Labeler):
    """An expert of `AutoModelForObjectDetection` that knows the 80 things of COCO."""

    threshold: ClassVar[float] = 0.4

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(self.spec, device, "AutoModelForObjectDetection")

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        network = self._network
        inputs = [network.inputs(images=network.pixels(sample["rgb"])) for sample in batch]
        return [{"det": self._boxes(each)} for each in detections(network, inputs)]

    def _boxes(self, outputs: Any) -> Label:
        (found,) = self._network.processor.post_process_object_detection(
            outputs, threshold=self.threshold, target_sizes=[(1, 1)]
        )
        names = coco_names(self._network.model.config.num_labels)
        labels = [names.get(int(each), "") for each in found["labels"]]
        return boxes_label(found["boxes"].cpu().numpy(), labels, found["scores"].tolist())


def detections(network: TransformersNetwork, inputs: Sequence[Tensors]) -> list[Any]:
    """For each sample what the network's post-processing reads: `logits` and `pred_boxes`."""

    def forward(batch: Tensors) -> list[Any]:
        outputs = network.model(**batch)
        pairs = zip(outputs.logits.float(), outputs.pred_boxes.float(), strict=True)
        return [SimpleNamespace(logits=each[None], pred_boxes=boxes[None]) for each, boxes in pairs]

    return network.run(inputs, forward)


def coco_names(num_labels: int) -> dict[int, str]:
    """The name of each class of a network that counts COCO's things with or without the gaps.

    The names in the networks' own files differ: some say sofa, some couch.

    >>> coco_names(80)[79], coco_names(91)[90]
    ('toothbrush', 'toothbrush')
    """
    return dict(enumerate(COCO_NAMES.values())) if num_labels <= len(COCO_NAMES) else COCO_NAMES
