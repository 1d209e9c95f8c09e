"""Tokenizers of vectors: one embedding of a whole image as a few tokens, of a code book each."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Modality, vector_tokens
from fourmill.tokenize.base import CropSettings, Tokenizer, TokenizerSpec, token_dtype
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.vq import WEIGHTS_FILE, parse_modality

# Vectors in one pass of the network, always as many: a matrix product may round differently for
# another number of rows, and a token must not depend on what else is in the batch.
_BATCH = 64

_DAMAGE = (KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValidationError)


class VectorTokenizer(Tokenizer):
    """A modality of vectors ↔ `tok_<name>`, one token a code book.

    A stored vector is of the whole image, and so are its tokens, whatever the crop.

    Args:
        definition: of the modality that it encodes; it is stored with the tokenizer.
        name: what the tokens are called, `tok_<name>`; the modality's name by default.
    """

    def __init__(
        self, definition: Modality, network: BottleneckAutoencoder, name: str | None = None
    ) -> None:
        config = network.config
        if definition.kind is not Kind.VECTOR or definition.channels != config.channels:
            raise ConfigError(
                f"{definition.name}: found {definition.kind.value} of {definition.channels} "
                f"channels; this tokenizer is for vectors of {config.channels}"
            )
        self.definition = definition
        self.network = network.eval().requires_grad_(False)
        name = name or definition.name
        self._tokens = vector_tokens(f"tok_{name}", definition.name, config.codes, config.books)
        self.spec = TokenizerSpec(
            modality=self._tokens.name,
            reads=definition.name,
            kind="vectors",
            vocab_size=config.codes,
            max_tokens=config.books,
            per_crop=False,
            config={
                "definition": asdict(definition) | {"classes": list(definition.classes)},
                "network": config.model_dump(),
                "name": name,
            },
        )

    @classmethod
    def load(cls, folder: Path, spec: TokenizerSpec) -> "VectorTokenizer":
        """Read what `save` wrote.

        Raises:
            ConfigError: the weights are not there, or are those of another network.
        """
        try:
            config = dict(spec.config)
            with torch.device("meta"):  # the file has all values: nothing is to be drawn
                network = BottleneckAutoencoder(BottleneckConfig(**config.pop("network")))
            network.load_state_dict(load_file(folder / WEIGHTS_FILE), assign=True)
            return cls(parse_modality(config.pop("definition")), network=network, **config)
        except _DAMAGE as error:
            raise ConfigError(f"{folder}: not a tokenizer of vectors: {error}") from error

    def save(self, folder: Path) -> None:
        """Write `spec.json` and `model.safetensors`."""
        super().save(folder)
        state = self.network.state_dict()
        save_file({name: each.contiguous() for name, each in state.items()}, folder / WEIGHTS_FILE)

    def to(self, device: str) -> "VectorTokenizer":
        """Move the network; tokens may differ between devices where two codes are as near."""
        self.network.to(device)
        return self

    @property
    def token_modality(self) -> Modality:
        """`tok_<name>`."""
        return self._tokens

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
        return self._in_batches(self.network.tokenize, vectors)

    @torch.inference_mode()
    def decode(self, ids: Int64[np.ndarray, "B G"]) -> Float32[np.ndarray, "B C"]:
        """What the network gives back.

        Raises:
            ConfigError: an id that is not in the code books.
        """
        if ids.min() < 0 or ids.max() >= self.spec.vocab_size:
            raise ConfigError(
                f"{self.spec.modality}: found ids {ids.min()} to {ids.max()}, expected 0 to "
                f"{self.spec.vocab_size - 1}"
            )
        return self._in_batches(self.network.decode_tokens, ids)

    def _in_batches(self, function: Any, rows: NDArray[Any]) -> NDArray[Any]:
        device = self.network.quant_proj.weight.device
        outputs = []
        for batch in torch.split(torch.from_numpy(rows), _BATCH):
            filled = F.pad(batch, (0, 0, 0, _BATCH - len(batch)))[..., None, None]
            outputs.append(function(filled.to(device))[: len(batch), :, 0, 0].cpu().numpy())
        joined: NDArray[Any] = np.concatenate(outputs)
        return joined
