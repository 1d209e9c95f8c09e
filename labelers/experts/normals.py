"""Surface normals, by the heads on the frozen ViT features."""

from collections.abc import Mapping, Sequence

import numpy as np

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.dense import CITATION, LICENCE, WEIGHTS, DenseHeads, weights_sha256
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class Normals(Labeler):
    """Unit vectors as `127.5 * (n + 1)` in the camera's frame: x right, y up, z to the viewer.

    The sky has none; it is given as facing the viewer.
    """

    spec = LabelerSpec(
        name="normals",
        version=1,
        reads=("rgb", "vit_s_focus_layers"),
        writes=("normal",),
        summary="surface normals in the camera's frame, by a small head on ViT features",
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
        normals = self._heads.predict(sample).normals
        return {"normal": np.rint(127.5 * (normals + 1)).astype(np.uint8)}


LABELER = Normals
