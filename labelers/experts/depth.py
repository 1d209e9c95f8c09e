"""Relative depth, by the heads on the frozen ViT features."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.dense import CITATION, LICENCE, WEIGHTS, DenseHeads, weights_sha256
from fourmill.labelers.relative_depth import relative_depth
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class Depth(Labeler):
    """0 for the nearest to 1 for the farthest: one minus the disparity, stretched over the image.

    Disparity is known up to scale and shift only, so depth is an order with sensible steps, not
    metres. Its errors are in `labelers/weights/MODEL_CARD.md`.
    """

    spec = LabelerSpec(
        name="depth",
        version=1,
        reads=("rgb", "vit_s_focus_layers"),
        writes=("depth",),
        summary="relative depth, 0 near to 1 far, by a small head on ViT features",
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
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, Label]:
        return {"depth": relative_depth(self._heads.predict(sample).disparity)}


LABELER = Depth
