"""Finer edges by Canny, for token grids of 28 x 28 and for larger pictures."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.experts.edges import canny
from fourmill.labelers.sizes import shrunk
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_AREA = 448 * 448
_SIGMA = 1.0


class FineCannyEdges(Labeler):
    """0 or 255, at about 448 x 448 pixels: twice the lines of `edges` along a side.

    What `edges` smooths away is here: letters, twigs, weave. A grid of 14 x 14 tokens cannot hold
    it; `label.max_side` has to leave the pixels.
    """

    spec = LabelerSpec(
        name="edges-fine",
        version=1,
        reads=("rgb",),
        writes=("canny_edge",),
        alternative=True,
        summary="edges by Canny at twice the resolution of `edges`, less smoothed",
        licence="Apache-2.0 (OpenCV)",
        citation="Canny 1986, A computational approach to edge detection",
        resources=Resources(memory_gib=0.3, batch_size=64),
    )

    def load(self, device: str) -> None:
        """Nothing to load."""

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"canny_edge": canny(shrunk(each["rgb"], _AREA), _SIGMA)} for each in batch]


LABELER = FineCannyEdges
