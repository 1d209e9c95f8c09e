"""Experts that find every thing in an image, whatever it is: masks without names."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.mask_proposals import MaskProposer, Thresholds, as_instances
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class InstanceLabeler(Labeler):
    """Numbers of instances at every pixel of the image, 0 where there is none.

    Where masks overlap, the smaller one is seen: a wheel on a car on a street.

    Attributes:
        points: on each side of the grid; this many and these thresholds are those of SAM's authors.
    """

    points = 32
    thresholds = Thresholds()

    def load(self, device: str) -> None:
        self._proposer = MaskProposer(self.spec, device, self.points)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        # one by one: the points of one image fill a GPU
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, Label]:
        masks = self._proposer.masks(sample["rgb"], self.thresholds)
        return {"instances": as_instances(masks, sample["rgb"].shape[:2])}
