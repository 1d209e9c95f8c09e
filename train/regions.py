"""Parts of a picture, in its grids of tokens: what to paint anew, and what to paint around.

A box hides tokens (inpainting) or keeps them (outpainting); a grid that is moved has room for more
of the picture at one side, and what was painted there is joined to what was there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking, Modality
from fourmill.train.conditions import UNKNOWN


@dataclass(frozen=True)
class Box:
    """A part of a picture, in fractions of its height and width, from the upper left corner.

    The picture is what the model sees of it: the centre square of a photograph.

    Raises:
        ConfigError: it is empty, or not within the picture.
    """

    top: float
    left: float
    bottom: float
    right: float

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ConfigError(
                f"box {self.top:g}, {self.left:g} to {self.bottom:g}, {self.right:g}: expected "
                f"fractions of the picture, the upper left corner first"
            )

    @staticmethod
    def of_pixels(
        top: int, left: int, bottom: int, right: int, height: int, width: int
    ) -> "Box":  # fmt: skip
        """A box in pixels of a picture of this size; `bottom` and `right` are not in it."""
        return Box(top / height, left / width, bottom / height, right / width)

    def grown(self, by: float) -> "Box":
        """The same with a margin on all sides, in fractions of the picture, as far as it goes."""
        return Box(
            max(0.0, self.top - by), max(0.0, self.left - by),
            min(1.0, self.bottom + by), min(1.0, self.right + by),
        )  # fmt: skip


def cells(modality: Modality, box: Box, whole: bool = False) -> Bool[Tensor, " tokens"]:
    """Which tokens of a grid show something of a box, or, where asked, nothing else.

    >>> from fourmill.manifests.modalities import modality
    >>> int(cells(modality("tok_rgb@224"), Box(0.0, 0.0, 0.5, 0.5)).sum())
    49

    Raises:
        ConfigError: no grid.
    """
    rows, columns = _grid(modality)
    down = _touched(box.top, box.bottom, rows, whole)
    across = _touched(box.left, box.right, columns, whole)
    return (down[:, None] & across).flatten()


def hide(
    tokens: Int64[Tensor, "batch tokens"], modality: Modality, box: Box
) -> Int64[Tensor, "batch tokens"]:
    """A grid without what shows something of a box: for inpainting."""
    return tokens.masked_fill(cells(modality, box).to(tokens.device), UNKNOWN)


def keep(
    tokens: Int64[Tensor, "batch tokens"], modality: Modality, box: Box
) -> Int64[Tensor, "batch tokens"]:
    """A grid with nothing but what lies in a box: for outpainting."""
    return tokens.masked_fill(~cells(modality, box, whole=True).to(tokens.device), UNKNOWN)


def move(
    tokens: Int64[Tensor, "batch tokens"], modality: Modality, down: int = 0, right: int = 0
) -> Int64[Tensor, "batch tokens"]:
    """A grid moved by some tokens (negative: up, left), open where nothing was.

    Raises:
        ConfigError: no grid, or nothing of it is left.
    """
    rows, columns = _grid(modality)
    if abs(down) >= rows or abs(right) >= columns:
        raise ConfigError(
            f"{modality.name}: moved by {down} and {right} tokens, nothing is left of {rows} x "
            f"{columns}"
        )
    canvas = torch.full_like(tokens, UNKNOWN).view(-1, rows, columns)
    grid = tokens.view(-1, rows, columns)
    canvas[:, max(0, down) : rows + min(0, down), max(0, right) : columns + min(0, right)] = grid[
        :, max(0, -down) : rows - max(0, down), max(0, -right) : columns - max(0, right)
    ]
    return canvas.flatten(1)


def join(
    before: Int64[Tensor, "batch tokens"],
    after: Int64[Tensor, "batch tokens"],
    modality: Modality,
    down: int = 0,
    right: int = 0,
) -> Int64[Tensor, "batch rows columns"]:
    """A grid, and what `move` by as much and then generation made of it, as one larger grid."""
    rows, columns = _grid(modality)
    canvas = before.new_full((len(before), rows + abs(down), columns + abs(right)), UNKNOWN)
    for grid, top, left in (
        (after, max(0, -down), max(0, -right)),
        (before, max(0, down), max(0, right)),
    ):
        canvas[:, top : top + rows, left : left + columns] = grid.view(-1, rows, columns)
    return canvas


def _grid(modality: Modality) -> tuple[int, int]:
    if modality.masking not in (Masking.IMAGE, Masking.PIXELS):
        raise ConfigError(f"{modality.name} is no grid: boxes and moves are of grids")
    return modality.grid


def _touched(start: float, stop: float, count: int, whole: bool) -> Bool[Tensor, " count"]:
    edge = torch.arange(count + 1, dtype=torch.float64) / count
    margin = 1e-9  # fractions of pixels do not divide evenly
    low, high = edge[:-1] + margin, edge[1:] - margin
    if whole:
        return (low >= start) & (high <= stop)
    return (high > start) & (low < stop)
