"""Features by SigLIP 2: what a picture means, in the space of texts in many languages."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.patch_maps import feature_map
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label


class SigLIP2(Labeler):
    """Patch vectors after the last norm, and the vector that is compared with texts.

    The variant that sees images in their own aspect, in at most 256 patches of 16 pixels.
    """

    spec = LabelerSpec(
        name="siglip2",
        version=1,
        reads=("rgb",),
        writes=("SigLIP2-B16", "SigLIP2-B16-global"),
        transient=("SigLIP2-B16",),
        summary="768 features a patch, and of the whole image, by SigLIP 2 ViT-B/16 (NaFlex)",
        licence="Apache-2.0",
        citation="Tschannen et al. 2025, SigLIP 2, arXiv:2502.14786",
        hub=HubWeights(
            "google/siglip2-base-patch16-naflex", "b53b807d3a2d5e2b3911292f2d69e5341cdc064c"
        ),
        resources=Resources(gpus=0.25, memory_gib=2.5, batch_size=32),
    )

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(self.spec, device, "Siglip2VisionModel")

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        network = self._network
        inputs = [network.inputs(images=network.pixels(sample["rgb"])) for sample in batch]
        return [*network.run(inputs, self._forward)]

    def _forward(self, batch: Tensors) -> list[Mapping[str, Label]]:
        outputs = self._network.model(**batch)
        states = zip(
            outputs.last_hidden_state, outputs.pooler_output, batch["spatial_shapes"], strict=True
        )
        return [
            {
                "SigLIP2-B16": feature_map(patches[: rows * columns], rows, columns),
                "SigLIP2-B16-global": pooled.float().cpu().numpy(),
            }
            for patches, pooled, (rows, columns) in (
                (patches, pooled, shape.tolist()) for patches, pooled, shape in states
            )
        ]


LABELER = SigLIP2
