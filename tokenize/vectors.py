"""Tokenizers of vectors: one embedding of a whole image as a few tokens, of a code book each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import PARTS, Kind, Modality, code_tokens, vector_tokens
from fourmill.tokenize.base import CropSettings, TokenizerSpec, as_config, token_dtype
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.networks import NetworkTokenizer


class VectorTokenizer(NetworkTokenizer):
    """A modality of vectors ↔ `tok_<name>`, one token a code book.

    A stored vector is of the whole image, and so are its tokens, whatever the crop.

    Args:
        definition: of the modality that it encodes.
        name: what the tokens are called, `tok_<name>`; the modality's name by default.
    """

    what = "a tokenizer of vectors"
    batch = 64
    network: BottleneckAutoencoder

    def __init__(
        self, definition: Modality, network: BottleneckAutoencoder, name: str | None = None
    ) -> None:
        config = network.config
        if definition.kind is not Kind.VECTOR or definition.channels != config.channels:
            raise ConfigError(
                f"{definition.name}: found {definition.kind.value} of {definition.channels} "
                f"channels; this tokenizer is for vectors of {config.channels}"
            )
        name = name or definition.name
        make = code_tokens if definition.name in PARTS else vector_tokens
        tokens = make(f"tok_{name}", definition.name, config.codes, config.books)
        super().__init__(definition, network, tokens)
        self.spec = TokenizerSpec(
            modality=tokens.name,
            reads=definition.name,
            kind="vectors",
            vocab_size=config.codes,
            max_tokens=config.books,
            per_crop=False,
            config={
                "definition": as_config(definition),
                "network": config.model_dump(),
                "name": name,
            },
        )

    @staticmethod
    def make_network(config: Mapping[str, Any]) -> BottleneckAutoencoder:
        """A new network, of the configuration that `spec.json` holds."""
        return BottleneckAutoencoder(BottleneckConfig(**config))

    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """`[B, tokens]`; see `Tokenizer`."""
        for label in labels:
            check_label(self.definition, label)
        ids = self.encode(np.stack([np.asarray(label, np.float32) for label in labels]))
        return ids.astype(token_dtype(self.spec.vocab_size))

    def detokenize(self, tokens: NDArray[np.integer[Any]]) -> list[Label]:
        """Vectors, float32.

        Raises:
            ConfigError: an id that is not in the code books.
        """
        ids = np.asarray(tokens, dtype=np.int64).reshape(-1, self.spec.max_tokens)
        return list(self.decode(ids)) if len(ids) else []

    @torch.inference_mode()
    def encode(self, vectors: Float32[np.ndarray, "B C"]) -> Int64[np.ndarray, "B G"]:
        """Ids of vectors; each's are independent of the others."""
        cells = torch.from_numpy(vectors)[..., None, None]
        return self._in_batches(self.network.tokenize, cells)[..., 0, 0].numpy()

    @torch.inference_mode()
    def decode(self, ids: Int64[np.ndarray, "B G"]) -> Float32[np.ndarray, "B C"]:
        """What the network gives back.

        Raises:
            ConfigError: an id that is not in the code books.
        """
        self._refuse_other_ids(ids)
        cells = torch.from_numpy(ids)[..., None, None]
        return self._in_batches(self.network.decode_tokens, cells)[..., 0, 0].numpy()
