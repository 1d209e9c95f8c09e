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
    rows, columns = modality.grid
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    return torch.cat([_waves(row, dim // 4), _waves(column, dim // 4)], dim=1)


def _waves(position: Tensor, frequencies: int) -> Tensor:
    omega = _TEMPERATURE ** -(torch.arange(frequencies) / frequencies)
    angle = position[:, None].float() * omega
    return torch.cat([angle.sin(), angle.cos()], dim=1)
