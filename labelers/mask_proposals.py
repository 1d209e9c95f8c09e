"""Masks of all that is in an image, by SAM and SAM 2: a grid of points, one question each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from fourmill.labelers.base import LabelerSpec
from fourmill.labelers.transformers_network import TransformersNetwork

_POINTS_AT_A_TIME = 64
_SAME_BOX = 0.7  # overlap of two masks' boxes above which the worse one is dropped


@dataclass(frozen=True)
class Thresholds:
    """Which masks are good, as SAM's authors set it.

    Attributes:
        quality: least overlap with the truth that the network expects of its mask.
        stability: least overlap of the mask with itself when it is cut at +1 and at -1.
    """

    quality: float = 0.88
    stability: float = 0.95


class MaskProposer:
    """A network of `AutoModelForMaskGeneration` with its own image processor, on one device.

    The steps are those of transformers' mask-generation pipeline without crops.

    Args:
        points: on each side of the grid.
    """

    def __init__(self, spec: LabelerSpec, device: str, points: int) -> None:
        self._network = TransformersNetwork(spec, device, "AutoModelForMaskGeneration")
        self._torch, self._processor = self._network.torch, self._network.processor
        self._points = points

    def masks(
        self, rgb: UInt8[np.ndarray, "H W 3"], thresholds: Thresholds
    ) -> list[Bool[np.ndarray, "H W"]]:
        """The good masks, each once, best first."""
        size = tuple(rgb.shape[:2])
        frame = self._torch.tensor([0, 0, size[1], size[0]])
        found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for logits, quality in self._answers(rgb):
            masks, scores, boxes = self._processor.filter_masks(
                logits, quality, size, frame, thresholds.quality, thresholds.stability
            )
            found[0].extend(masks)
            found[1].append(scores)
            found[2].append(boxes)
        kept, *_ = self._processor.post_process_for_mask_generation(
            found[0], self._torch.cat(found[1]), self._torch.cat(found[2]), _SAME_BOX
        )
        return [np.asarray(each.cpu()).astype(bool) for each in kept]

    def probabilities(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Iterator[Any]:
        """Each distinct mask as float32 `[H, W]`, 0 to 1, whether it is good or not."""
        from torchvision.ops import batched_nms, masks_to_boxes

        logits, quality = zip(*self._answers(rgb), strict=True)
        masks = self._torch.cat([each.flatten(0, 1) for each in logits])
        scores = self._torch.cat([each.flatten() for each in quality])
        some = (masks > 0).flatten(1).any(dim=1)
        masks, scores = masks[some], scores[some]
        if not len(masks):
            return
        group = self._torch.zeros(len(masks), device=masks.device)
        kept = batched_nms(masks_to_boxes(masks > 0), scores, group, _SAME_BOX)
        for index in kept:
            yield masks[index].sigmoid().cpu()

    def _answers(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Iterator[tuple[Any, Any]]:
        """Logits `[points, 3, H, W]` and expected quality `[points, 3]`, some points at a time."""
        model, device = self._network.model, self._network.device
        image = self._network.pixels(rgb)
        size = self._processor.size
        longest = size.get("longest_edge", size.get("height"))
        _, points, images, labels = self._processor.generate_crop_boxes(
            image, longest, points_per_crop=self._points, device=device
        )
        inputs = self._processor(images=images, device=device, return_tensors="pt")
        sizes = {key: inputs[key] for key in ("reshaped_input_sizes",) if key in inputs}
        with self._torch.inference_mode():
            pixels = inputs["pixel_values"].to(model.dtype)
            embeddings = model.get_image_embeddings(pixels)
            for start in range(0, points.shape[1], _POINTS_AT_A_TIME):
                some = slice(start, start + _POINTS_AT_A_TIME)
                outputs = model(
                    input_points=points[:, some],
                    input_labels=labels[:, some],
                    image_embeddings=embeddings,
                )
                (logits,) = self._processor.post_process_masks(
                    outputs.pred_masks.float(), [rgb.shape[:2]], binarize=False, **sizes
                )
                yield logits, outputs.iou_scores[0].float()
