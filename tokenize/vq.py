"""VQ tokenizers: images, depth, normals, edges, class maps and feature maps as grids of codes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from fourmill.manifests.errors import ConfigError, NoDecoderError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Modality, token_modality
from fourmill.tokenize.autoencoder import (
    AutoencoderConfig,
    EncoderConfig,
    TokenEncoder,
    VQAutoencoder,
)
from fourmill.tokenize.base import CropSettings, TokenizerSpec, as_config, token_dtype
from fourmill.tokenize.encoder_only import EncoderOnly
from fourmill.tokenize.networks import NetworkTokenizer
from fourmill.tokenize.sizes import resized_network
from fourmill.tokenize.values import cut, refuse_classes, refuse_other_kinds, to_labels, to_tensor


class VQTokenizer(NetworkTokenizer):
    """A dense modality ↔ `tok_<name>@<size>`, one code a patch.

    Subclasses decode in other ways: `_decoded` is what they replace.

    Args:
        definition: of the modality that it encodes.
        size: side of a crop in pixels.
        patch: side of a token in pixels; for feature maps, too, of the image they are of.
        network: its input is `size` pixels square, or one cell a token for feature maps.
        name: what the tokens are called, `tok_<name>@<size>`; the modality's name by default (the
            reference says `clip` of `CLIP-B16`).
    """

    kind: ClassVar[str] = "vq"
    what = "a VQ tokenizer"
    network: TokenEncoder

    def __init__(
        self,
        definition: Modality,
        size: int,
        patch: int,
        network: TokenEncoder,
        name: str | None = None,
    ) -> None:
        refuse_other_kinds(definition)
        config = network.shape
        if config.grid != size // patch or size % patch:
            raise ConfigError(
                f"{definition.name}: the network has a grid of {config.grid} tokens a side, and "
                f"size {size} with patches of {patch} needs {size / patch:g}"
            )
        name = name or definition.name
        tokens = token_modality(name, size, patch, config.codes, of=definition.name)
        super().__init__(definition, network, tokens)
        self.spec = TokenizerSpec(
            modality=tokens.name,
            reads=definition.name,
            kind=self.kind,
            vocab_size=config.codes,
            max_tokens=config.grid**2,
            per_crop=True,
            config={
                "definition": as_config(definition),
                "size": size,
                "patch": patch,
                "network": network.config.model_dump(mode="json"),
                "name": name,
            },
        )

    @staticmethod
    def make_network(config: Mapping[str, Any]) -> TokenEncoder:
        """A new network, of the configuration that `spec.json` holds."""
        return VQAutoencoder(AutoencoderConfig(**config))

    @property
    def side(self) -> int:
        """Side of what the network sees: pixels, or feature cells."""
        return self.network.shape.size

    def at_size(self, size: int) -> "VQTokenizer":
        """The same tokenizer for crops of another size: the same weights, more or fewer tokens.

        Positions are interpolated (bicubic), from those of this size: begin with the size that it
        was trained for. How good the tokens are depends on whether it was trained on several sizes.

        Args:
            size: side of a crop, in pixels.

        Raises:
            ConfigError: a size that the network cannot have.
        """
        config = self.spec.config
        if size < 1 or size % config["patch"]:
            raise ConfigError(
                f"{self.spec.modality}: found size {size}, expected a multiple of its patches of "
                f"{config['patch']} pixels"
            )
        try:
            network = resized_network(self.network, self.side * size // config["size"])
        except ValidationError as error:
            reasons = "; ".join(
                each["msg"].removeprefix("Value error, ") for each in error.errors()
            )
            raise ConfigError(f"{self.spec.modality}: size {size}: {reasons}") from error
        changed = {"definition": self.definition, "network": network, "size": size}
        return type(self)(**(config | changed))

    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """`[B, crops, tokens]`; see `Tokenizer`."""
        cropped = [
            self._cropped(label, settings, size)
            for label, settings, size in zip(labels, crops, image_sizes, strict=True)
        ]
        # numbers of four bytes for one pass at a time, not for all of what is often bytes
        ids = self._in_batches(self._ids, torch.from_numpy(np.concatenate(cropped)))
        dtype = token_dtype(self.spec.vocab_size)
        return ids.numpy().reshape(len(cropped), -1, self.spec.max_tokens).astype(dtype)

    def detokenize(self, tokens: NDArray[np.integer[Any]]) -> list[Label]:
        """Labels of `size` pixels square, or of a cell a token for feature maps."""
        grid = self.network.shape.grid
        ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).view(-1, grid, grid)
        return to_labels(self.definition, self.decode(ids)) if len(ids) else []

    def prepare(
        self, label: Label, crops: CropSettings, image_size: tuple[int, int]
    ) -> Float[Tensor, "K C S S"] | Int[Tensor, "K S S"]:
        """What the network sees of a label's crops.

        Raises:
            SampleError: a label of wrong shape, range or type.
        """
        return to_tensor(self.definition, self._cropped(label, crops, image_size))

    def _cropped(
        self, label: Label, crops: CropSettings, image_size: tuple[int, int]
    ) -> NDArray[Any]:
        cropped = cut(self.definition, label, crops, image_size, self.side)
        if self.definition.kind is Kind.CLASSES:
            refuse_classes(self.definition, cropped, self.network.shape.labels - 1)
        return cropped

    @torch.inference_mode()
    def _ids(self, cropped: Tensor) -> Int[Tensor, "B h w"]:
        return self.network.tokenize(to_tensor(self.definition, cropped))

    @torch.inference_mode()
    def encode(
        self, inputs: Float[Tensor, "B C S S"] | Int[Tensor, "B S S"]
    ) -> Int[Tensor, "B h w"]:
        """Ids of prepared crops, on the CPU; each crop's are independent of the others."""
        return self._in_batches(self.network.tokenize, inputs)

    @torch.inference_mode()
    def decode(self, ids: Int[Tensor, "B h w"]) -> Float[Tensor, "B C S S"]:
        """What the network gives back, values or logits, on the CPU.

        Raises:
            ConfigError: an id that is not in the code book.
        """
        self._refuse_other_ids(ids)
        return self._decoded(ids)

    def _decoded(self, ids: Int[Tensor, "B h w"]) -> Float[Tensor, "B C S S"]:
        """What `decode` gives, of ids that there are."""
        assert isinstance(self.network, VQAutoencoder)
        return self._in_batches(self.network.decode_tokens, ids)


class EncoderOnlyTokenizer(VQTokenizer):
    """A VQ tokenizer that makes tokens, and raises `NoDecoderError` where it should decode them.

    Args:
        why: what became of its decoder, for that error.
    """

    kind = "vq-encoder"

    def __init__(
        self,
        definition: Modality,
        size: int,
        patch: int,
        network: TokenEncoder,
        name: str | None = None,
        why: str | None = None,
    ) -> None:
        super().__init__(definition, size, patch, network, name)
        self.why = why or "it was loaded without its decoder"
        if why:  # folders of before have no reason
            self.spec = replace(self.spec, config=self.spec.config | {"why": why})

    @staticmethod
    def make_network(config: Mapping[str, Any]) -> TokenEncoder:
        """A new network, of the configuration that `spec.json` holds."""
        return EncoderOnly(EncoderConfig(**config))

    def _decoded(self, ids: Int[Tensor, "B h w"]) -> Float[Tensor, "B C S S"]:
        raise NoDecoderError(
            f"{self.spec.modality}: this tokenizer makes tokens, and cannot turn them back: "
            f"{self.why}"
        )
