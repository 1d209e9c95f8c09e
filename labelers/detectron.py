"""Detectors of detectron2: pixels in, boxes of COCO's 80 things out.

detectron2 is in no package index: https://github.com/facebookresearch/detectron2 says how it is
built. Written for its documented interface of version 0.6.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from fourmill.labelers import detectron_weights
from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.batches import is_accelerator
from fourmill.labelers.boxes import boxes_label
from fourmill.labelers.detectors import coco_names
from fourmill.labelers.required import check_packages
from fourmill.labelers.sizes import stretched
from fourmill.manifests.errors import MissingPackageError, SampleError
from fourmill.manifests.labels import Label

LICENCE = "Apache-2.0"
PROJECT = "Wu et al. 2019, Detectron2"


@dataclass(frozen=True)
class Network:
    """A network, and how it wants its pixels.

    Attributes:
        shortest: pixels of the shorter side.
        longest: most pixels of the longer side, which wins.
        is_bgr: the order of its colours.
    """

    model: Any
    shortest: int
    longest: int
    is_bgr: bool


class DetectronLabeler(Labeler):
    """An expert of detectron2.

    Attributes:
        checkpoint: its weights, below `detectron_weights.PREFIX`.
        threshold: boxes of a lower score are left out.
    """

    checkpoint: ClassVar[str]
    threshold: ClassVar[float] = 0.4

    @abstractmethod
    def build(self) -> Network:
        """The network without its weights."""

    def weights_sha256(self) -> str:
        return detectron_weights.sha256(self.checkpoint)

    def load(self, device: str) -> None:
        check_packages(self.spec, "build it from github.com/facebookresearch/detectron2, then ")
        import torch

        self._torch, self._device = torch, device
        self._network = self.build()
        arrays = detectron_weights.load_arrays(detectron_weights.checkpoint(self.checkpoint))
        weights = {name: torch.from_numpy(np.array(each)) for name, each in arrays.items()}
        absent = self._network.model.load_state_dict(weights, strict=False).missing_keys
        # mean and deviation of the pixels come with the configuration
        absent = [name for name in absent if not name.startswith("pixel_")]
        if absent:
            raise MissingPackageError(
                f"{self.checkpoint} lacks {len(absent)} of the network's weights, such as "
                f"{absent[0]}: it belongs to another network"
            )
        self._network.model.roi_heads.mask_on = False  # boxes are all that is wanted
        self._network.model.to(device).eval()

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        # one by one: it pads the images of a batch to the largest, and rounds differently then
        return [{"det": self._boxes(sample["rgb"])} for sample in batch]

    def _boxes(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Label:
        height, width = rgb.shape[:2]
        inputs = {"image": self._pixels(stretched(rgb)), "height": height, "width": width}
        with self._torch.inference_mode(), self._torch.autocast("cuda", enabled=self._is_half()):
            (outputs,) = self._network.model([inputs])
        found = outputs["instances"].to("cpu")
        good = found.scores >= self.threshold
        names = coco_names(80)
        return boxes_label(
            found.pred_boxes.tensor[good].float().numpy() / [width, height, width, height],
            [names[int(each)] for each in found.pred_classes[good]],
            found.scores[good].tolist(),
        )

    def _pixels(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Any:
        """Float32 `[3, h, w]` from 0 to 255, at the network's size, as its own mapper makes it."""
        from detectron2.data import transforms

        network = self._network
        image = np.array(rgb[..., ::-1] if network.is_bgr else rgb)
        resize = transforms.ResizeShortestEdge([network.shortest] * 2, network.longest)
        pixels = resize.get_transform(image).apply_image(image).astype(np.float32)
        return self._torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _is_half(self) -> bool:
        return is_accelerator(self._device)
