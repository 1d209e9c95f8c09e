"""Features by ImageBind: what a picture shares with its sounds, its depth, its words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.batches import in_equal_batches, is_accelerator, precision
from fourmill.labelers.patch_maps import feature_map, patch_grid
from fourmill.labelers.sizes import resized, stretched
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label

_SHORTEST = 16  # patches: 224 pixels
# ImageNet's rather than ImageBind's own: 4M's tokenizers of its features were trained on what the
# network says of images that are normalised so
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class ImageBind(Labeler):
    """Patch vectors and class vector of the ViT-H/14, after its last block, 1280 numbers each.

    The head behind them (a norm, and a projection to the 1024 numbers that are compared with those
    of other senses) is left out: 4M-21 has the wider vectors. Whether its authors took them before
    or after the head's norm is not published; these are the ones before. The image is seen whole,
    in its own aspect, with 224 pixels on its shorter side.
    """

    spec = LabelerSpec(
        name="imagebind",
        version=1,
        reads=("rgb",),
        writes=("ImageBind-H14", "ImageBind-H14-global"),
        transient=("ImageBind-H14",),
        summary="1280 features a patch, and of the whole image, by ImageBind ViT-H/14",
        licence="CC-BY-NC-SA-4.0",
        citation="Girdhar et al. 2023, ImageBind: one embedding space to bind them all, "
        "arXiv:2305.05665",
        hub=HubWeights("nielsr/imagebind-huge", "72fdc699f73107650d658d1ca5d8261a371a2112"),
        weights_mb=4800,
        resources=Resources(gpus=0.5, memory_gib=8.0, batch_size=16),
    )

    def load(self, device: str) -> None:
        import torch

        from fourmill.labelers.backbones.imagebind import PATCH, load_imagebind

        assert self.spec.hub is not None
        self._torch: Any = torch
        self._patch = PATCH
        self._device, self._dtype = device, precision(device)
        network = load_imagebind(self.spec.hub.folder())
        self._network = network.to(device=device, dtype=self._dtype)
        self._batch_size = self.spec.resources.batch_size if is_accelerator(device) else 1

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        inputs = [self._pixels(sample["rgb"]) for sample in batch]
        return [
            *in_equal_batches(inputs, lambda each: each.shape, self._batch_size, self._features)
        ]

    def _pixels(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "3 h w"]:
        height, width = rgb.shape[:2]
        rows, columns = patch_grid(height, width, _SHORTEST)
        sized = resized(stretched(rgb), rows * self._patch, columns * self._patch)
        pixels = (sized.astype(np.float32) / 255 - _MEAN) / _STD
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _features(self, group: Sequence[Float32[np.ndarray, "3 h w"]]) -> list[Mapping[str, Label]]:
        pixels = self._torch.from_numpy(np.stack(group)).to(self._device, self._dtype)
        rows, columns = (side // self._patch for side in pixels.shape[-2:])
        with self._torch.inference_mode():
            states = self._network(pixels)
        return [
            {
                "ImageBind-H14": feature_map(each[1:], rows, columns),
                "ImageBind-H14-global": each[0].float().cpu().numpy(),
            }
            for each in states
        ]


LABELER = ImageBind
