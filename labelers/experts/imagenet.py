"""What an image shows, in the thousand words of ImageNet, and the features behind the answer."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.backbones.efficientnet_lite0 import (
    PACKAGE,
    SHA256,
    VERSION,
    network,
    pixels,
)
from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_BEST = 5


class ImageNet(Labeler):
    """EfficientNet-Lite0: the five likeliest classes, and the 1,280 pooled features.

    Of the built-in experts' features these say most of what a thing is. The whole image is squeezed
    into a square, so that nothing at its border is missed.
    """

    spec = LabelerSpec(
        name="imagenet",
        version=1,
        reads=("rgb",),
        writes=("imagenet", "imagenet_features"),
        summary="five likeliest ImageNet classes with scores, and 1,280 pooled features",
        licence="Apache-2.0",
        citation="Tan and Le 2019, EfficientNet, arXiv:1905.11946 (Lite0)",
        weights=f"pip {PACKAGE}=={VERSION}",
        weights_mb=19,
        resources=Resources(memory_gib=0.8, batch_size=16),
    )

    def weights_sha256(self) -> str:
        return SHA256

    def load(self, device: str) -> None:
        import torch
        from timm.data.imagenet_info import ImageNetInfo

        info = ImageNetInfo()
        self._classes = [
            info.index_to_description(index).partition(",")[0].strip() for index in range(1000)
        ]
        self._torch, self._device, self._model = torch, device, network(device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        # one by one: a matrix product of another size may round differently
        return [self._one(sample["rgb"]) for sample in batch]

    def _one(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Mapping[str, Label]:
        torch = self._torch
        values = torch.from_numpy(pixels(rgb)).to(self._device)[None]
        with torch.inference_mode():
            pooled = self._model.forward_head(self._model.forward_features(values), pre_logits=True)
            scores = self._model.classifier(pooled).softmax(dim=-1)[0].cpu().numpy()
        best = np.argsort(-scores, kind="stable")[:_BEST]
        return {
            "imagenet": [
                {"class_name": self._classes[index], "score": round(float(scores[index]), 4)}
                for index in best
            ],
            "imagenet_features": pooled[0].float().cpu().numpy(),
        }


LABELER = ImageNet
