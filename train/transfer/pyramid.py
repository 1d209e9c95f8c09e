"""Maps of several strides from the last map of a plain encoder, after ViTDet (Li et al. 2022).

Shapes: B images, D width of the encoder, C channels, h and w patches.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError

SCALES = (4.0, 2.0, 1.0, 0.5)
"""Of ViTDet: strides 4, 8, 16 and 32 for patches of 16 pixels."""


class SimplePyramid(nn.Module):
    """One map a scale, each from the last map alone.

    Attributes:
        strides: of each map, in pixels of the image.

    Raises:
        ConfigError: a scale that is no power of two from 1/2 to 4, or a stride below a pixel.
    """

    def __init__(
        self, dim: int, patch: int, channels: int = 256, scales: Sequence[float] = SCALES
    ) -> None:
        super().__init__()
        wrong = [
            each for each in scales if each not in _STAGES or patch % (each if each > 1 else 1)
        ]
        if wrong or not scales:
            raise ConfigError(
                f"pyramid: found scales {list(scales)} of patches of {patch} pixels, expected some "
                f"of {', '.join(f'{each:g}' for each in _STAGES)} that give whole strides"
            )
        self.channels = channels
        self.strides = tuple(round(patch / scale) for scale in scales)
        self.levels = nn.ModuleList(_level(dim, channels, scale) for scale in scales)

    @property
    def names(self) -> tuple[str, ...]:
        """As detectors call maps: `p4` has a stride of 16."""
        return tuple(f"p{int(math.log2(stride))}" for stride in self.strides)

    def forward(self, x: Float[Tensor, "B D h w"]) -> list[Float[Tensor, "B C rows columns"]]:
        """The maps, in the order of the scales."""
        return [level(x) for level in self.levels]


_STAGES = (4.0, 2.0, 1.0, 0.5)


def _level(dim: int, channels: int, scale: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    if scale == 4.0:
        layers += [
            nn.ConvTranspose2d(dim, dim // 2, 2, 2), LayerNorm2d(dim // 2), nn.GELU(),
            nn.ConvTranspose2d(dim // 2, dim // 4, 2, 2),
        ]  # fmt: skip
        dim = dim // 4
    elif scale == 2.0:
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, 2))
        dim = dim // 2
    elif scale == 0.5:
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(
        *layers,
        nn.Conv2d(dim, channels, 1, bias=False), LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels),
    )  # fmt: skip
