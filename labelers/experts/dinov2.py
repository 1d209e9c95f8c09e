"""Features by DINOv2: what and where things are, learned from pictures alone."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.patch_maps import feature_map, patch_grid
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label

_PATCH = 14
_SHORTEST = 16  # patches: 224 pixels


class DINOv2(Labeler):
    """Patch vectors and class vector of ViT-B/14, after the last norm, as 4M-21 takes them.

    The image is seen whole, in its own aspect, with 224 pixels on its shorter side.
    """

    spec = LabelerSpec(
        name="dinov2",
        version=1,
        reads=("rgb",),
        writes=("DINOv2-B14", "DINOv2-B14-global"),
        transient=("DINOv2-B14",),
        summary="768 features a patch, and of the whole image, by DINOv2 ViT-B/14",
        licence="Apache-2.0",
        citation="Oquab et al. 2023, DINOv2, arXiv:2304.07193",
        hub=HubWeights("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
        weights_mb=346,
        resources=Resources(gpus=0.25, memory_gib=2.0, batch_size=32),
    )

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(self.spec, device, "Dinov2Model")

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        inputs = [self._inputs(sample) for sample in batch]
        return [*self._network.run(inputs, self._forward)]

    def _inputs(self, sample: Sample) -> Tensors:
        height, width = sample["rgb"].shape[:2]
        rows, columns = patch_grid(height, width, _SHORTEST)
        return self._network.inputs(
            images=self._network.pixels(sample["rgb"]),
            size={"height": rows * _PATCH, "width": columns * _PATCH},
            do_center_crop=False,
        )

    def _forward(self, batch: Tensors) -> list[Mapping[str, Label]]:
        states = self._network.model(**batch).last_hidden_state
        rows, columns = (side // _PATCH for side in batch["pixel_values"].shape[-2:])
        return [
            {
                "DINOv2-B14": feature_map(each[1:], rows, columns),
                "DINOv2-B14-global": each[0].float().cpu().numpy(),
            }
            for each in states
        ]


LABELER = DINOv2
