"""Tensors that may be spread over processes, and how one comes from another."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: Tensor) -> Tensor:
    """In one piece: all processes must ask for it together."""
    value = value.detach()
    if not isinstance(value, DTensor):
        return value
    full = value.full_tensor()
    return full.wait() if isinstance(full, AsyncCollectiveTensor) else full


def local(value: Tensor) -> Tensor:
    """The part that this process has, which shares its memory."""
    value = value.detach()
    return value.to_local() if isinstance(value, DTensor) else value


def placed_as(model: Tensor, value: Tensor) -> Tensor:
    """A whole value, on the device of another tensor and spread as that is."""
    value = value.to(model.device)
    if isinstance(model, DTensor):
        return distribute_tensor(value, model.device_mesh, model.placements)
    return value


@torch.no_grad()
def swap(some: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    """Values of two lists change places."""
    for one, two in zip(some, other, strict=True):
        mine, its = local(one), local(two)
        kept = mine.clone()
        mine.copy_(its)
        its.copy_(kept)
