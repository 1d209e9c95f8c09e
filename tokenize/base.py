"""What a tokenizer is: a map from the labels of one modality to discrete tokens, and back.

Every tokenizer owns its preprocessing: `prepare` takes a stored label and crop settings and does
all that lies between the disk and the network, so that nobody can feed it the wrong normalisation.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Modality

SPEC_FILE = "spec.json"
CONTROLNET = "controlnet"
"""The folder of a ControlNet inside a tokenizer's, see `controlled.py`."""

CropSettings = Int64[np.ndarray, "crops 5"]
"""Rows of (top, left, height, width, flip) in pixels of the stored image."""


@dataclass(frozen=True)
class TokenizerSpec:
    """What is known of a tokenizer without its weights.

    Attributes:
        modality: the token modality that it makes (`tok_depth@224`, `tok_caption`).
        reads: the modality that it encodes (`depth`, `caption`).
        kind: which class loads it: `vq`, `vq-encoder`, `diffusion`, `vectors`, `text`, `boxes`,
            `palette`, `metadata`, `poses`, `instances`, `masks`.
        per_crop: whether tokens differ between crops of a sample (`[crops, tokens]` or `[tokens]`).
        config: constructor arguments of the class, JSON.
    """

    modality: str
    reads: str
    kind: str
    vocab_size: int
    max_tokens: int
    per_crop: bool
    config: dict[str, Any]

    def to_json(self) -> str:
        """The spec as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)


class Tokenizer(ABC):
    """Labels of one modality ↔ tokens.

    A tokenizer is saved as a folder with `spec.json` and its weights or vocabulary; `registry.load`
    reads any of them.
    """

    spec: TokenizerSpec

    @property
    @abstractmethod
    def token_modality(self) -> Modality:
        """Definition of the tokens' modality, to be registered and stored with the dataset."""

    @abstractmethod
    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """Tokens of a batch of labels, padded to `max_tokens`.

        Args:
            labels: as `manifests.labels.decode_label` gives them; dense ones cover the whole image
                at any resolution.
            crops: one array a sample, in pixels of the stored image.
            image_sizes: (height, width) of the stored images, upright.
            keys: seed what is drawn at random, so that tokens do not depend on batches or workers.

        Returns:
            `[B, crops, tokens]`, or `[B, tokens]` for what does not depend on the crop; int16 for
            vocabularies of up to 32,768 ids, else int32.

        Raises:
            SampleError: a label of wrong shape, range or type.
        """

    @abstractmethod
    def detokenize(self, tokens: NDArray[np.integer[Any]]) -> list[Label]:
        """Labels of the crops that `[B, tokens]` describe; the inverse of `tokenize` as far as it
        has one."""

    def save(self, folder: Path) -> None:
        """Write the folder that `registry.load` reads: `spec.json`, and what a class adds."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SPEC_FILE).write_text(self.spec.to_json(), encoding="utf-8")


def token_dtype(vocab_size: int) -> np.dtype[np.signedinteger[Any]]:
    """int16 for vocabularies of up to 32,768 ids, else int32."""
    return np.dtype(np.int16 if vocab_size <= 2**15 else np.int32)


def as_config(definition: Modality) -> dict[str, Any]:
    """A definition as a tokenizer's `spec.json` holds it."""
    written: dict[str, Any] = json.loads(json.dumps(definition.record()))
    return written
