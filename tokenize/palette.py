"""Colour palettes as words: `v1=<colours>`, then `v0=<red> v0=<green> v0=<blue>` for each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError
from fourmill.tokenize.draws import uniforms
from fourmill.tokenize.vocabulary import number, parse_number
from fourmill.tokenize.words import WordTokenizer

_COUNT, _CHANNEL = 1, 0  # axes


class PaletteTokenizer(WordTokenizer):
    """`color_palette` ↔ `tok_color_palette`.

    The label is `[{"1": [[r, g, b]], "2": [[r, g, b], [r, g, b]], …}]` with channels of 0..255: a
    palette for each number of colours, of which the sample's key draws one.
    """

    kind = "palette"
    reads = "color_palette"

    def encode(
        self,
        label: Any,
        key: str,
        crop: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> list[int]:
        """Ids of the drawn palette."""
        palettes = self._checked(label)
        counts = sorted(palettes)
        count = counts[int(uniforms(1, "palette", key)[0] * len(counts))]
        room = (self.spec.max_tokens - 2) // 3  # beside the number of colours and the end
        colours = palettes[count][:room]
        channels = [number(_CHANNEL, value) for colour in colours for value in colour]
        return [number(_COUNT, len(colours)), *channels]

    def decode(self, ids: list[int]) -> list[Any]:
        """One palette, as `[{"<colours>": [[r, g, b], …]}]`; empty if the ids say none."""
        numbers = [parse_number(id) for id in ids]
        channels = [each[1] for each in numbers if each and each[0] == _CHANNEL and each[1] < 256]
        colours = [channels[i : i + 3] for i in range(0, len(channels) - 2, 3)]
        return [{str(len(colours)): colours}] if colours else []

    def _checked(self, label: Any) -> dict[int, list[list[int]]]:
        palettes = label[0] if isinstance(label, list) and label else None
        if not isinstance(palettes, dict) or not palettes:
            raise SampleError(self.reads, 'expected [{"1": [[r, g, b]], "2": …}]')
        for count, colours in palettes.items():
            is_palette = isinstance(colours, list) and str(len(colours)) == count
            if not (is_palette and colours and all(map(_is_colour, colours))):
                raise SampleError(
                    self.reads, f"palette {count!r} is {colours!r}, expected {count} colours "
                    "[r, g, b] of whole numbers from 0 to 255"
                )  # fmt: skip
        return {int(count): colours for count, colours in palettes.items()}


def _is_colour(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(each) is int and 0 <= each <= 255 for each in value)
    )
