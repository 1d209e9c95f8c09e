"""An encoder with a head: what is fine-tuned, and what answers in the end."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from fourmill.train.embeddings import IMAGENET_MEAN, IMAGENET_STD
from fourmill.train.transfer.backbone import Backbone
from fourmill.train.transfer.config import HeadConfig
from fourmill.train.transfer.heads import ConvNeXtHead, LinearHead

Pooling = Literal["mean", "registers"]


class Network(nn.Module):
    """Answers for images, or for each of their pixels.

    Attributes:
        outputs: numbers of an answer.
        is_dense: whether each pixel has one.

    Args:
        head: of dense tasks; `None` for one answer an image.
        seed: of the head's weights.
    """

    def __init__(
        self, backbone: Backbone, outputs: int, head: HeadConfig | None, pooling: Pooling = "mean",
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.outputs, self.is_dense = outputs, head is not None
        self._pooling = pooling
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head: LinearHead | ConvNeXtHead
            if head is None:
                self.head = LinearHead(backbone.num_features, outputs)
            else:
                self.head = ConvNeXtHead(
                    backbone.num_features, outputs, head.width, head.finer, head.depth
                )

    def forward(
        self, images: Tensor, tokens: Mapping[str, Int64[Tensor, "B length"]] | None = None
    ) -> Tensor:
        """`[B, outputs]`, or `[B, outputs, H, W]` of dense tasks.

        Args:
            images: `[B, 3, H, W]`, as the backbone takes them.
        """
        features = self.backbone.forward_features(images, tokens)
        outputs: Tensor
        if isinstance(self.head, ConvNeXtHead):
            height, width = images.shape[-2:]
            outputs = self.head(self.backbone.as_map(features, images), (height, width))
        else:
            outputs = self.head(pooled(self.backbone, features, images, self._pooling))
        return outputs


def pooled(backbone: Backbone, features: Tensor, images: Tensor, pooling: Pooling) -> Tensor:
    """`[B, D]` of what `forward_features` gave.

    Raises:
        ConfigError: registers of a model that has none.
    """
    if pooling == "registers":
        return backbone.pooled_registers(features)
    rows, columns = backbone.grid_of(images)
    return backbone.forward_head(features, rows * columns)


def normalised(images: Tensor) -> Tensor:
    """Floats of bytes `[B, 3, H, W]`, as the backbone takes them."""
    mean, std = (
        torch.tensor(each, device=images.device)[:, None, None]
        for each in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (images / 255 - mean) / std
