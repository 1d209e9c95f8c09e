"""Where in the picture the words of its caption are, by Grounding DINO."""

from collections.abc import Mapping, Sequence
from typing import Any

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.boxes import boxes_label
from fourmill.labelers.detectors import detections
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label

_BOX_THRESHOLD, _WORD_THRESHOLD = 0.3, 0.25
_MOST_WORD_PIECES = 256


class GroundingDino(Labeler):
    """Boxes whose `class_name` is the phrase of the caption that they show, in lower case.

    The whole caption is the query, as its authors have it for phrase grounding; a phrase is made of
    the word pieces that a box answers to. A sample with an empty caption has no boxes.
    """

    spec = LabelerSpec(
        name="grounding-dino",
        version=1,
        reads=("rgb", "caption"),
        writes=("grounding",),
        summary="boxes of what the caption names, by Grounding DINO (Swin-B)",
        licence="Apache-2.0",
        citation="Liu et al. 2023, Grounding DINO, arXiv:2303.05499",
        hub=HubWeights(
            "IDEA-Research/grounding-dino-base", "12bdfa3120f3e7ec7b434d90674b3396eccf88eb"
        ),
        weights_mb=933,
        resources=Resources(gpus=0.5, memory_gib=5.0, batch_size=4),
    )

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(
            self.spec, device, "AutoModelForZeroShotObjectDetection", "AutoProcessor"
        )

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        spoken = [index for index, sample in enumerate(batch) if sample["caption"].strip()]
        inputs = [self._inputs(batch[index]) for index in spoken]
        outputs = detections(self._network, inputs)
        found = zip(spoken, outputs, inputs, strict=True)
        boxes = {index: self._boxes(each, given) for index, each, given in found}
        return [{"grounding": boxes.get(index, {"instances": []})} for index in range(len(batch))]

    def _inputs(self, sample: Sample) -> Tensors:
        return self._network.inputs(
            images=self._network.pixels(sample["rgb"]), text=as_query(sample["caption"]),
            truncation=True, max_length=_MOST_WORD_PIECES,
        )  # fmt: skip

    def _boxes(self, outputs: Any, inputs: Tensors) -> Label:
        (found,) = self._network.processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"][None], threshold=_BOX_THRESHOLD,
            text_threshold=_WORD_THRESHOLD, target_sizes=[(1, 1)],
        )  # fmt: skip
        phrases = [self._plain(each) for each in found["text_labels"]]
        return boxes_label(found["boxes"].cpu().numpy(), phrases, found["scores"].tolist())

    def _plain(self, phrase: str) -> str:
        """Without the marks of where the text ends, to which a box may answer too."""
        for mark in self._network.processor.tokenizer.all_special_tokens:
            phrase = phrase.replace(mark, " ")
        return " ".join(phrase.split()).strip(" .")


def as_query(caption: str) -> str:
    """A caption as the network was trained to read it: in lower case, with a full stop.

    >>> as_query(" Two dogs on a Beach")
    'two dogs on a beach.'
    """
    text = " ".join(caption.lower().split())
    return text if text.endswith(".") else f"{text}."


LABELER = GroundingDino
