"""Masks of instances as a few codes: each cut out by its box, at one size, whatever its own is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Modality, code_tokens
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.base import CropSettings, TokenizerSpec, as_config, token_dtype
from fourmill.tokenize.networks import NetworkTokenizer

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; right and bottom are the first ones outside."""


class MaskTokenizer(NetworkTokenizer):
    """`sam_mask` ↔ `tok_sam_mask`, what `tok_sam_instance` is made of.

    A mask is uint8 `[H, W]`, 0 outside and 255 inside, of an instance's box alone; it is brought to
    the network's size. The network sees 0 to 1 and gives logits, as in the reference.

    Args:
        definition: of the masks, `sam_mask`.
        network: of one channel.
    """

    what = "a tokenizer of masks"
    network: VQAutoencoder

    def __init__(self, definition: Modality, network: VQAutoencoder) -> None:
        config = network.config
        if definition.kind is not Kind.EDGE or (config.channels, config.labels) != (1, 0):
            raise ConfigError(
                f"{definition.name}: found {definition.kind.value} and a network of "
                f"{config.channels} channels; tokenizers of masks are for one channel, 0 to 255"
            )
        count = config.grid**2
        tokens = code_tokens(f"tok_{definition.name}", definition.name, config.codes, count)
        super().__init__(definition, network, tokens)
        self.spec = TokenizerSpec(
            modality=tokens.name,
            reads=definition.name,
            kind="masks",
            vocab_size=config.codes,
            max_tokens=count,
            per_crop=False,
            config={"definition": as_config(definition), "network": config.model_dump()},
        )

    @staticmethod
    def make_network(config: Mapping[str, Any]) -> VQAutoencoder:
        """A new network, of the configuration that `spec.json` holds."""
        return VQAutoencoder(AutoencoderConfig(**config))

    @property
    def side(self) -> int:
        """Pixels of the masks that the network sees."""
        return self.network.config.size

    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """`[B, tokens]`; see `Tokenizer`."""
        return self.encode(self.prepare(labels)).astype(token_dtype(self.spec.vocab_size))

    def prepare(self, labels: Sequence[Label]) -> Bool[np.ndarray, "B S S"]:
        """Masks as the network sees them.

        Raises:
            SampleError: a label of wrong shape, range or type.
        """
        for label in labels:
            check_label(self.definition, label)
        return np.stack([fit_mask(np.asarray(label), self.side) for label in labels])

    def detokenize(self, tokens: NDArray[np.integer[Any]]) -> list[Label]:
        """Masks, 0 to 255 by how likely a pixel is inside.

        Raises:
            ConfigError: an id that is not in the code book.
        """
        ids = np.asarray(tokens, dtype=np.int64).reshape(-1, self.spec.max_tokens)
        if not len(ids):
            return []
        return list((255 * self.decode(ids)).round().astype(np.uint8))

    @torch.inference_mode()
    def encode(self, masks: Bool[np.ndarray, "B S S"]) -> Int64[np.ndarray, "B N"]:
        """Ids of masks of the network's size; each's are independent of the others."""
        rows = torch.from_numpy(masks).float()[:, None]
        return self._in_batches(self.network.tokenize, rows).flatten(1).numpy()

    @torch.inference_mode()
    def decode(self, ids: Int64[np.ndarray, "B N"]) -> Float32[np.ndarray, "B S S"]:
        """How likely each pixel is inside, 0 to 1.

        Raises:
            ConfigError: an id that is not in the code book.
        """
        self._refuse_other_ids(ids)
        grid = self.network.config.grid
        rows = torch.from_numpy(ids).view(-1, grid, grid)
        return self._in_batches(self._likely, rows)[:, 0].numpy()

    def _likely(self, ids: Tensor) -> Tensor:
        return self.network.decode_tokens(ids).sigmoid().float()


def box_of(mask: Bool[np.ndarray, "H W"]) -> Box:
    """The smallest box around a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def fit_mask(mask: UInt8[np.ndarray, "H W"], side: int) -> Bool[np.ndarray, "side side"]:
    """A mask of 0 and 255, stretched to a square."""
    return cut_mask(mask >= 128, (0, 0, mask.shape[1], mask.shape[0]), side)


def cut_mask(mask: Bool[np.ndarray, "H W"], box: Box, side: int) -> Bool[np.ndarray, "side side"]:
    """What is in a box, stretched to a square."""
    left, top, right, bottom = box
    return _resized(mask[top:bottom, left:right].astype(np.float32), side, side)


def paint_mask(
    plane: NDArray[np.uint16], mask: Float32[np.ndarray, "S S"], box: Box, value: int
) -> None:
    """Set a plane to a value where a mask that is stretched to a box is more than a half; what lies
    beyond the plane is cut off."""
    left, top, right, bottom = box
    inside = _resized(mask, right - left, bottom - top)
    part = plane[top:bottom, left:right]
    part[inside[: part.shape[0], : part.shape[1]]] = value


def _resized(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
    image = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    inside: NDArray[np.bool_] = np.asarray(image) > 0.5
    return inside
