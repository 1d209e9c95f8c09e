"""Captions as word pieces."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.tokenize.words import WordTokenizer


class TextTokenizer(WordTokenizer):
    """`caption`, or another text ↔ `tok_caption`: lower-cased; what is too long is cut and has no
    `[EOS]`."""

    kind = "text"
    reads = "caption"

    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of the caption."""
        return self.vocabulary.encode(label)

    def decode(self, ids: list[int]) -> str:
        """Lower-cased words."""
        return self.vocabulary.decode(ids)
