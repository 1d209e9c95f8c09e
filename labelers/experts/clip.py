"""Features by CLIP: what a picture shows, in the space of texts."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.open_clip_network import CITATION, LICENCE, WEIGHTS, WEIGHTS_MB, OpenCLIP
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class CLIP(Labeler):
    """The map that 4M tokenizes, and the unit vector of the image that is compared with texts.

    The map is that of the reference: the last states of the patches, normed and projected, of an
    image that is normalised with ImageNet's mean and deviation. The vector is what CLIP's own
    preprocessing gives.
    """

    spec = LabelerSpec(
        name="clip",
        version=1,
        reads=("rgb",),
        writes=("CLIP-B16", "CLIP-B16-global"),
        transient=("CLIP-B16",),
        summary="512 features a patch, and of the whole image, by CLIP ViT-B/16",
        licence=LICENCE,
        citation=CITATION,
        hub=WEIGHTS,
        weights_mb=WEIGHTS_MB,
        requires={"open_clip": "clip"},
        resources=Resources(gpus=0.25, memory_gib=2.0, batch_size=64),
    )

    def load(self, device: str) -> None:
        self._network = OpenCLIP(self.spec, device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        images = [sample["rgb"] for sample in batch]
        pairs = zip(self._network.maps(images), self._network.image_vectors(images), strict=True)
        return [{"CLIP-B16": map, "CLIP-B16-global": vector} for map, vector in pairs]


LABELER = CLIP
