"""Coarse classes of every pixel, by the heads on the frozen ViT features."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.dense import CITATION, LICENCE, WEIGHTS, DenseHeads, weights_sha256
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class Segments(Labeler):
    """Indices of `modalities.COARSE_CLASSES`: walls, floors, seats, plants, people, sky, …

    Learned from rendered scenes and cut-outs: surfaces and outlines are better than names.
    """

    spec = LabelerSpec(
        name="segments",
        version=1,
        reads=("rgb", "vit_s_focus_layers"),
        writes=("semseg_coarse",),
        summary="one of 21 coarse classes a pixel, by a small head on ViT features",
        licence=LICENCE,
        citation=CITATION,
        weights=WEIGHTS,
        weights_mb=1,
        resources=Resources(memory_gib=0.8, batch_size=16),
    )

    def weights_sha256(self) -> str:
        return weights_sha256()

    def load(self, device: str) -> None:
        self._heads = DenseHeads(device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"semseg_coarse": self._heads.predict(sample).classes} for sample in batch]


LABELER = Segments
