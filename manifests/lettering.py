"""Words on pictures: any Unicode text, in the largest size that fits into a box."""

import unicodedata
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import matplotlib
from PIL import ImageDraw, ImageFont

from fourmill.manifests.framing import Box, Colour

Font: TypeAlias = ImageFont.FreeTypeFont

INK: Colour = (32, 33, 36)
PALE_INK: Colour = (128, 132, 138)

_LACKING = "\u25a1"  # an empty square
_NEVER_DRAWN = "\U0010ffff"
_MAX_CHARACTERS = 2_000


def drawable(text: str) -> str:
    """The text with an empty square for every character that the font lacks.

    >>> drawable("café 珈琲")
    'café □□'
    """
    composed = unicodedata.normalize("NFC", text[:_MAX_CHARACTERS])
    visible = (each for each in composed if each.isprintable() or each.isspace())
    return "".join(each if each.isspace() or _has_glyph(each) else _LACKING for each in visible)


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which travels with matplotlib; `size` in pixels."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(1.25 * size)


def write(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: Box,
    *,
    largest: int,
    smallest: int = 9,
    fill: Colour = INK,
    centred: bool = False,
    down: float = 0.0,
) -> None:
    """Write wrapped text into a box; what does not fit in the smallest size ends with `…`.

    Args:
        largest, smallest: sizes in pixels to choose from.
        centred: each line in the middle of the box, rather than at its left side.
        down: where the spare height goes: 0 below the text, 0.5 on both sides, 1 above it.
    """
    words = drawable(text)
    size, lines = _fit(words, box, largest, min(smallest, largest))
    letters = font(size)
    top = box.top + down * max(0, box.height - len(lines) * line_height(size))
    for number, line in enumerate(lines):
        spare = box.width - letters.getlength(line)
        left = box.left + (spare / 2 if centred else 0)
        draw.text((left, top + number * line_height(size)), line, fill, letters)


def _fit(text: str, box: Box, largest: int, smallest: int) -> tuple[int, list[str]]:
    for size in range(largest, smallest - 1, -1):
        lines = _wrap(text, font(size), box.width)
        if len(lines) * line_height(size) <= box.height and not _breaks_words(lines, text):
            return size, lines
    letters = font(smallest)
    lines = _wrap(text, letters, box.width)
    room = max(1, box.height // line_height(smallest))
    if len(lines) > room:
        lines = [*lines[: room - 1], _shorten(lines[room - 1], letters, box.width)]
    return smallest, lines


def _wrap(text: str, letters: Font, width: int) -> list[str]:
    """Lines no wider than `width`, broken at spaces, and within words that are wider."""
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if letters.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            *whole, line = _pieces(word, letters, width)
            lines += whole
        lines.append(line)
    return lines


def _pieces(word: str, letters: Font, width: int) -> list[str]:
    """A word, cut where it gets too wide, after a sign within it where there is one."""
    pieces = []
    while len(word) > 1 and letters.getlength(word) > width:
        end = max(1, _fitting_length(word, letters, width))
        sign = max(map(word[:end].rfind, "_-@/."))
        cut = sign + 1 if sign > 0 else end
        pieces.append(word[:cut])
        word = word[cut:]
    return [*pieces, word]


def _fitting_length(word: str, letters: Font, width: int) -> int:
    lengths = range(1, len(word) + 1)
    return bisect_right(lengths, float(width), key=lambda length: letters.getlength(word[:length]))


def _breaks_words(lines: list[str], text: str) -> bool:
    """Whether a line ends within a word, at no sign: a smaller size may avoid that."""
    whole = set(text.split())
    ends = [line.split()[-1] for line in lines if line.split()]
    return any(each not in whole and each[-1].isalnum() for each in ends[:-1])


def _shorten(line: str, letters: Font, width: int) -> str:
    while line and letters.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    return bytes(font(20).getmask(character)) != bytes(font(20).getmask(_NEVER_DRAWN))
