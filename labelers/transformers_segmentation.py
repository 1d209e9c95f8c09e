"""Experts for semantic segmentation from transformers: a class for every pixel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.image_outputs import image_outputs
from fourmill.labelers.transformers_network import TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

QUERIES = ("class_queries_logits", "masks_queries_logits")
"""What networks give that match masks to classes: Mask2Former, OneFormer."""


class SegmentationLabeler(Labeler):
    """An expert whose classes are those of the modality that it writes, in the same order.

    What the network says is brought to the image's size as its processor does it.

    Attributes:
        model: name of the class in transformers that loads the network.
        outputs: what its processor's post-processing reads.
    """

    model = "AutoModelForUniversalSegmentation"
    outputs: Sequence[str] = QUERIES

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(self.spec, device, self.model)
        self._constants: dict[str, Any] = {}

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        (written,) = self.spec.writes
        images = [sample["rgb"] for sample in batch]
        outputs = image_outputs(self._network, images, self.outputs, self._constants)
        return [
            {written: self._classes(each, rgb.shape[:2])}
            for each, rgb in zip(outputs, images, strict=True)
        ]

    def _classes(self, outputs: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
        """Index of the likeliest class at every pixel."""
        processor = self._network.processor
        (found,) = processor.post_process_semantic_segmentation(outputs, [size])
        indices: UInt8[np.ndarray, "H W"] = found.cpu().numpy().astype(np.uint8)
        return indices
