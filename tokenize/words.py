"""What the tokenizers of text-like modalities share: a vocabulary, an end, and padding."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.labels import Label, check_label
from fourmill.manifests.modalities import Kind, Masking, Modality, modality
from fourmill.tokenize.base import CropSettings, Tokenizer, TokenizerSpec, as_config, token_dtype
from fourmill.tokenize.vocabulary import EOS, PAD, Vocabulary

VOCABULARY_FILE = "vocabulary.json"


class WordTokenizer(Tokenizer):
    """A label as words of the shared vocabulary, ended by `[EOS]` and padded with `[PAD]`.

    Attributes:
        tokens: what they are called, `tok_<tokens>`; as what it reads by default.

    Args:
        max_tokens: of one sample, `[EOS]` included.
        definition: of the modality that it encodes, or its record, where that is another of the
            same kind than the one that the class is for; it is stored with the tokenizer.
    """

    kind: ClassVar[str]
    reads: str
    tokens: ClassVar[str] = ""
    per_crop: ClassVar[bool] = False

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_tokens: int,
        definition: Modality | Mapping[str, Any] | None = None,
        **config: Any,
    ) -> None:
        self.vocabulary = vocabulary
        self.stored = modality(self.reads) if definition is None else _modality(definition)
        if self.stored.name != self.reads:
            self.reads = self.stored.name
            config["definition"] = as_config(self.stored)
        self.spec = TokenizerSpec(
            modality=f"tok_{self.tokens or self.reads}",
            reads=self.reads,
            kind=self.kind,
            vocab_size=len(vocabulary),
            max_tokens=max_tokens,
            per_crop=self.per_crop,
            config=config,
        )

    @classmethod
    def load(cls, folder: Path, spec: TokenizerSpec) -> "WordTokenizer":
        """Read what `save` wrote."""
        return cls(Vocabulary.load(folder / VOCABULARY_FILE), spec.max_tokens, **spec.config)

    def save(self, folder: Path) -> None:
        """Write `spec.json` and `vocabulary.json`."""
        super().save(folder)
        self.vocabulary.save(folder / VOCABULARY_FILE)

    @property
    def token_modality(self) -> Modality:
        """Masked in spans, or in spans of chunks, as the reference masks the stored modality."""
        name = self.spec.modality
        return Modality(
            name, Kind.TOKENS, name, "npy", self.stored.masking or Masking.SEQUENCE,
            self.spec.vocab_size, self.spec.max_tokens, token_of=self.reads,
        )  # fmt: skip

    def tokenize(
        self,
        labels: Sequence[Label],
        crops: Sequence[CropSettings],
        image_sizes: Sequence[tuple[int, int]],
        keys: Sequence[str],
    ) -> NDArray[np.integer[Any]]:
        """`[B, tokens]`, or `[B, crops, tokens]` of what depends on the crop; see `Tokenizer`."""
        rows: list[Any] = []
        for label, settings, size, key in zip(labels, crops, image_sizes, keys, strict=True):
            check_label(self.stored, label)
            if self.per_crop:
                rows.append([self._pad(self.encode(label, key, row, size)) for row in settings])
            else:
                rows.append(self._pad(self.encode(label, key)))
        return np.array(rows, dtype=token_dtype(self.spec.vocab_size))

    def detokenize(self, tokens: NDArray[np.integer[Any]]) -> list[Label]:
        """One label a row, up to its end; what is no sentence of the modality is left out."""
        return [self.decode(_until_end(row)) for row in tokens.tolist()]

    @abstractmethod
    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of one label, without the end.

        Args:
            crop: (top, left, height, width, flip), for modalities that depend on it.
        """

    @abstractmethod
    def decode(self, ids: list[int]) -> Label:
        """The label that ids say, as far as they say one; never raises for ids of a model."""

    def _pad(self, ids: list[int]) -> list[int]:
        length = self.spec.max_tokens
        return [*ids, EOS, *([PAD] * length)][:length]


def _modality(definition: Modality | Mapping[str, Any]) -> Modality:
    return definition if isinstance(definition, Modality) else Modality.of(definition)


def _until_end(ids: list[int]) -> list[int]:
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [each for each in ids[:end] if each != PAD]
