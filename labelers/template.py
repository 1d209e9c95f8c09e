"""Template: one line on what it makes of an image."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.sizes import shrunk
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Modality, register

# what it writes, unless manifests/modalities.py has it: `Kind` says which values are allowed
register(Modality("template", Kind.EDGE, "template", "png", channels=1))


class Template(Labeler):
    """What its labels mean: unit, range, what is near and what is far."""

    spec = LabelerSpec(
        name="template",
        version=1,
        reads=("rgb",),
        writes=("template",),
        summary="one line for the catalogue",
        licence="of code and weights together",
        citation="paper or project, in one line",
        # weights of a model hub: hub=HubWeights("org/name", "revision"), and see docs/experts.md
        resources=Resources(memory_gib=0.5, batch_size=16),
    )

    def load(self, device: str) -> None:
        """Once in each worker: heavy imports and weights come here, and nowhere else."""

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        # one entry a sample, in order, whatever else is in the batch
        return [{"template": template(sample["rgb"])} for sample in batch]


def template(rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w"]:
    """Brightness, 0 to 255, at about 224 x 224 pixels: put something better here."""
    grey: UInt8[np.ndarray, "h w"] = cv2.cvtColor(shrunk(rgb, 224 * 224), cv2.COLOR_RGB2GRAY)
    return grey


LABELER = Template
