"""Experts that find every thing in an image, whatever it is: masks without names."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.mask_proposals import MaskProposer, Thresholds
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label
from fourmill.manifests.run_lengths import masks_label, paint_masks


class InstanceLabeler(Labeler):
    """Masks of all things and parts: each whole, and as one plane of numbers.

    `sam_instance` has the masks, which may overlap, the best first, as run lengths. `instances` has
    the number of the instance at every pixel, 0 where there is none; where masks overlap, the
    smaller one is seen: a wheel on a car on a street.

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
        return {
            "instances": paint_masks(masks, sample["rgb"].shape[:2]),
            "sam_instance": masks_label(masks),
        }
