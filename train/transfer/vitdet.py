"""The encoder as a backbone of detectron2's detectors: ViTDet's feature pyramid over it.

detectron2 is in no package index: https://github.com/facebookresearch/detectron2 says how to build
it. What it asks of a backbone is little, and is computed here without it.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import MissingPackageError
from fourmill.train.transfer.backbone import Backbone
from fourmill.train.transfer.pyramid import SCALES, SimplePyramid

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""For `MODEL.PIXEL_MEAN` of a detector, whose images have to be `RGB`; `PIXEL_STD` too."""

PIXEL_STD = (58.395, 57.12, 57.375)


class PyramidBackbone(nn.Module):
    """What a detector sees of an image: maps of strides 4 to 32, and one more from the last.

    Attributes:
        size_divisibility: images have to be padded to multiples of it.
    """

    def __init__(
        self, net: Backbone, channels: int = 256, scales: Sequence[float] = SCALES,
        one_more: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net = net
        self.pyramid = SimplePyramid(net.num_features, net.patch_size, channels, scales)
        self.one_more = one_more
        self.size_divisibility = max(net.patch_size, *self.pyramid.strides)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Channels and stride of each map, by its name."""
        strides = dict(zip(self.pyramid.names, self.pyramid.strides, strict=True))
        if self.one_more:
            last = max(strides.values())
            strides[f"p{last.bit_length()}"] = 2 * last
        return {name: (self.pyramid.channels, stride) for name, stride in strides.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name.

        Args:
            images: float `[B, 3, H, W]`, normalised; H and W multiples of `size_divisibility`.
        """
        _, (last,) = self.net.forward_intermediates(images, indices=1, norm=True)
        maps = dict(zip(self.pyramid.names, self.pyramid(last), strict=True))
        if self.one_more:  # as detectors for large objects have it: every second place
            coarsest = min(maps.values(), key=lambda each: each.shape[-1])
            maps[list(self.shapes)[-1]] = F.max_pool2d(coarsest, 1, 2)
        return maps


def detectron2_backbone(net: Backbone, **options: Any) -> Any:
    """A `detectron2.modeling.Backbone` around an encoder, for any of its detectors.

    Args:
        options: of `PyramidBackbone`.

    Raises:
        MissingPackageError: detectron2 is not installed.
    """
    try:
        from detectron2.layers import ShapeSpec
        from detectron2.modeling import Backbone as Base
    except ImportError as error:
        raise MissingPackageError(
            "ViTDet needs detectron2, which is in no package index: install it from "
            "https://github.com/facebookresearch/detectron2"
        ) from error

    class ViTDetBackbone(Base):  # type: ignore[misc]
        """See `PyramidBackbone`."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = PyramidBackbone(net, **options)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            maps: dict[str, Tensor] = self.inner(images)
            return maps

        @property
        def size_divisibility(self) -> int:
            return self.inner.size_divisibility

        @property
        def padding_constraints(self) -> dict[str, int]:
            return {"size_divisiblity": self.inner.size_divisibility}  # as it is spelled there

        def output_shape(self) -> dict[str, Any]:
            return {
                name: ShapeSpec(channels=channels, stride=stride)
                for name, (channels, stride) in self.inner.shapes.items()
            }

    return ViTDetBackbone()
