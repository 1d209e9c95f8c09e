"""Experts for depth from transformers: any network of its depth-estimation task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.image_outputs import image_outputs
from fourmill.labelers.relative_depth import relative_depth
from fourmill.labelers.transformers_network import TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class DepthLabeler(Labeler):
    """An expert whose network predicts inverse depth up to scale and shift.

    What it predicts is brought to the image's size as transformers' depth pipeline does it.
    """

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(self.spec, device, "AutoModelForDepthEstimation")

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        images = [sample["rgb"] for sample in batch]
        names = ("predicted_depth", "field_of_view")
        outputs = image_outputs(self._network, images, names)
        return [
            {"depth": relative_depth(self.disparity(self._predicted(each, rgb.shape[:2])))}
            for each, rgb in zip(outputs, images, strict=True)
        ]

    def disparity(self, predicted: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
        """Larger is nearer; a network that predicts distances says here how."""
        return predicted

    def _predicted(self, outputs: Any, size: tuple[int, int]) -> Float32[np.ndarray, "H W"]:
        (found,) = self._network.processor.post_process_depth_estimation(outputs, [size])
        depth: Float32[np.ndarray, "H W"] = found["predicted_depth"].reshape(size).cpu().numpy()
        return depth
