"""One network for crops of several sizes: its positions are interpolated, all else stays."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fourmill.tokenize.autoencoder import TokenEncoder

Network = TypeVar("Network", bound=TokenEncoder)


def resized_network(network: Network, size: int) -> Network:
    """The same weights for inputs of another side, in pixels or feature cells.

    Raises:
        ValidationError: a side that its decoder cannot have.
    """
    make: Any = type(network)  # of the configuration of its own kind
    with torch.device("meta"):  # the state has all values: nothing is to be drawn
        resized: Network = make(network.config.resized(size))
    state = resized_state(network.state_dict(), resized.shape.grid)
    resized.load_state_dict(state, assign=True)
    return resized


def resized_state(state: Mapping[str, Tensor], grid: int) -> dict[str, Tensor]:
    """Weights with the positions of `grid` rows and columns of tokens.

    They are what the reference computes of them in every pass, and so does `autoencoder`.
    """
    return {
        name: _resized(value, grid) if name.endswith(".pos_emb") else value
        for name, value in state.items()
    }


def _resized(positions: Float[Tensor, "1 D _ _"], grid: int) -> Float[Tensor, "1 D g g"]:
    if positions.shape[2:] == (grid, grid):
        return positions
    return F.interpolate(positions, (grid, grid), mode="bicubic", align_corners=False)
