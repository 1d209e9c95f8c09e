"""One small network that reads depth, normals and classes off the frozen ViT features.

Shapes: B batch, h and w the grid of patches (16 x 16 for a square image), H = 8 h, W = 8 w.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fourmill.labelers.backbones.vit_s_focus import LAYERS, WIDTH
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import COARSE_CLASSES

PIXELS_A_PATCH = 8
"""Side of what is predicted of one patch."""

_CLASSES = len(COARSE_CLASSES)
_ABOUT = "heads"  # the entry of the file's metadata


class Predictions(NamedTuple):
    """What the heads say of a batch.

    Attributes:
        disparity: inverse depth up to scale and shift, larger is nearer.
        normals: unit vectors in the camera's frame: x right, y up, z to the viewer.
        logits: of `COARSE_CLASSES`, at half the resolution.
    """

    disparity: Float[Tensor, "B H W"]
    normals: Float[Tensor, "B 3 H W"]
    logits: Float[Tensor, "B classes h2 w2"]


@dataclass(frozen=True)
class HeadsConfig:
    """Which network: the one that is shipped, or a baseline that it is judged by.

    Attributes:
        source: what it sees of a patch: the ViT's features, or its pixels.
        linear: a linear map of each patch alone, without context and without pixels.
    """

    source: Literal["features", "pixels"] = "features"
    linear: bool = False


class Heads(nn.Module):
    """A trunk of convolutions with three outputs; the pixels join on the way up, for the outlines.

    0.67 million weights, so that it learns from some thousand frames and costs little beside the
    backbone.
    """

    def __init__(self, config: HeadsConfig = HeadsConfig()) -> None:
        super().__init__()
        self.config = config
        channels = len(LAYERS) * WIDTH if config.source == "features" else 3 * PIXELS_A_PATCH**2
        width = 4 + _CLASSES if config.linear else 128
        self.project = nn.Conv2d(channels, width, 1)
        self.place = nn.Conv2d(2, width, 1)
        if not config.linear:
            self.forget = nn.Dropout2d(0.1)
            self.trunk = nn.Sequential(*(_Block(width) for _ in range(2)))
            self.up = _Up(width, 64, unshuffle=4)
            self.up_again = _Up(64, 48, unshuffle=2)
            self.shape = nn.Conv2d(48, 4, 1)
            self.classes = nn.Conv2d(48, _CLASSES, 1)

    def forward(
        self, features: Float[Tensor, "B 1536 h w"], pixels: Float[Tensor, "B 3 H W"]
    ) -> Predictions:
        """Depth, normals and classes.

        Args:
            pixels: RGB from 0 to 1, eight a side for each patch.
        """
        if self.config.source == "pixels":
            patches = functional.pixel_unshuffle(pixels * 4 - 2, PIXELS_A_PATCH)
        else:
            patches = _layer_norm(features)
        x = self.project(patches) + self.place(_coordinates(patches))
        if self.config.linear:
            x = _larger(x, PIXELS_A_PATCH // 2)
            return _predictions(x[:, :4], x[:, 4:])
        x = self.trunk(self.forget(x))
        x = self.up_again(self.up(x, pixels), pixels)
        return _predictions(self.shape(x), self.classes(x))


class _Block(nn.Module):
    """ConvNeXt's (Liu et al. 2022, arXiv:2201.03545): depthwise 7 x 7, then a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width, padding_mode="replicate")
        self.norm = nn.GroupNorm(1, width)
        self.widen = nn.Conv2d(width, 4 * width, 1)
        self.narrow = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        # depthwise convolutions in bfloat16 take CPUs three times as long
        with torch.autocast(x.device.type, enabled=False):
            mixed = self.mix(x.float())
        hidden = functional.gelu(self.widen(self.norm(mixed)))
        out: Tensor = x + self.narrow(hidden)
        return out


class _Up(nn.Module):
    """Twice the resolution, with what the pixels say at that scale."""

    def __init__(self, wide: int, narrow: int, unshuffle: int) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.reduce = _same(wide, narrow)
        self.look = _same(3 * unshuffle**2, narrow)
        self.smooth = _same(narrow, narrow)

    def forward(
        self, x: Float[Tensor, "B wide h w"], pixels: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B narrow h2 w2"]:
        seen = self.look(functional.pixel_unshuffle(pixels * 4 - 2, self.unshuffle))
        x = functional.gelu(self.reduce(_larger(x, 2)) + seen)
        out: Tensor = x + functional.gelu(self.smooth(x))
        return out


def _same(wide: int, narrow: int) -> nn.Conv2d:
    """3 x 3 without a frame of zeros: that would be seen in the labels of every image."""
    return nn.Conv2d(wide, narrow, 3, padding=1, padding_mode="replicate")


def save_heads(heads: Heads, path: Path, notes: dict[str, str]) -> None:
    """Weights as float16, with the configuration and notes of how they were made."""
    weights = {name: each.half().contiguous() for name, each in heads.state_dict().items()}
    about = json.dumps(notes | asdict(heads.config), sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # one entry: safetensors writes several in an order of chance
    save_file(weights, path, metadata={_ABOUT: about})


def load_heads(path: Path, device: str = "cpu") -> Heads:
    """Heads in evaluation mode, computing in float32.

    Raises:
        ConfigError: not a file of heads.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if _ABOUT not in metadata:
        raise ConfigError(f"{path} holds no heads: its metadata has no entry {_ABOUT!r}")
    about = json.loads(metadata[_ABOUT])
    heads = Heads(HeadsConfig(about["source"], about["linear"]))
    heads.load_state_dict(weights)
    return heads.to(device).eval()


def _layer_norm(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Each layer of each patch with mean 0 and deviation 1: layers differ a hundredfold in size."""
    last = features.permute(0, 2, 3, 1)
    layers = last.reshape(*last.shape[:3], -1, WIDTH)
    normalised: Tensor = functional.layer_norm(layers, (WIDTH,)).flatten(-2)
    return normalised.permute(0, 3, 1, 2)


def _coordinates(like: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 2 h w"]:
    """Row and column from -1 to 1: what is lower in a picture is mostly nearer."""
    rows, columns = like.shape[-2:]
    axes = [
        (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) * (2 / count) - 1
        for count in (rows, columns)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(like), -1, -1, -1)


def _predictions(
    shape: Float[Tensor, "B 4 h2 w2"], logits: Float[Tensor, "B classes h2 w2"]
) -> Predictions:
    shape = _larger(shape.float(), 2)
    return Predictions(shape[:, 0], functional.normalize(shape[:, 1:], dim=1), logits.float())


def _larger(x: Float[Tensor, "B C h w"], factor: int) -> Float[Tensor, "B C h2 w2"]:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear")
