"""Sine-cosine embeddings of positions (Vaswani et al. 2017), in one and two dimensions."""

import torch
from jaxtyping import Float32
from torch import Tensor

from fourmill.manifests.modalities import Modality
from fourmill.train.domains import SEQUENCES, num_positions

_TEMPERATURE = 10_000.0


def position_table(modality: Modality, dim: int) -> Float32[Tensor, "positions dim"]:
    """Embeddings of all positions of a modality; those of grids run row by row."""
    if modality.masking in SEQUENCES:
        return _waves(torch.arange(num_positions(modality)), dim // 2)
    return grid_table(modality.grid, modality.grid, dim)


def grid_table(
    grid: tuple[int, int],
    native: tuple[int, int],
    dim: int,
    device: torch.device | None = None,
) -> Float32[Tensor, "positions dim"]:
    """Embeddings of a grid that covers what a model learned to see as another one.

    The waves are taken at the places of that other grid at which the cells' centres lie, so nothing
    is resampled; the grid itself gives its own table, to the bit.

    Args:
        grid: rows and columns; `native` too.
    """
    row, column = (
        (torch.arange(count, device=device) + 0.5) * (whole / count) - 0.5
        for count, whole in zip(grid, native, strict=True)
    )
    row, column = row.repeat_interleave(grid[1]), column.repeat(grid[0])
    return torch.cat([_waves(row, dim // 4), _waves(column, dim // 4)], dim=1)


def _waves(position: Tensor, frequencies: int) -> Tensor:
    omega = _TEMPERATURE ** -(torch.arange(frequencies, device=position.device) / frequencies)
    angle = position[:, None].float() * omega
    return torch.cat([angle.sin(), angle.cos()], dim=1)
