"""A model over several processes: copies of it (DDP), or parts of it (FSDP)."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from fourmill.train.loss import Loss, Weighting, compute_loss
from fourmill.train.model import FourM
from fourmill.train.processes import Process
from fourmill.train.selection import Selection

Sharding = Literal["none", "fsdp"]


class LossOf(nn.Module):
    """A model with its loss: what is called, and spread, as one."""

    def __init__(self, model: FourM, weighting: Weighting) -> None:
        super().__init__()
        self.model = model
        self.weighting = weighting

    def forward(
        self, selection: Selection, counts: Tensor | None, own: Sequence[int] | None
    ) -> Loss:
        """See `compute_loss`."""
        return compute_loss(self.model, selection, self.weighting, counts, own)


class Spread:
    """A model and its loss, over all processes.

    Calling it gives the loss of a part of a step; gradients are those of the sum over all parts
    and processes once `last` was called with true.
    """

    def __init__(self, module: LossOf, process: Process, sharding: Sharding, dtype: torch.dtype):
        for each in module.parameters():
            each.requires_grad_(each.numel() > 0)  # tables without rows never get a gradient
        self._process = process
        self._called: nn.Module = module
        if process.count == 1:
            return
        if sharding == "fsdp":
            _shard(module, dtype, process)
            return
        self._called = copied(module, process)

    def __call__(
        self,
        selection: Selection,
        counts: Tensor | None = None,
        own: Sequence[int] | None = None,
    ) -> Loss:
        """The loss of a part; see `compute_loss`."""
        result: Loss = self._called(selection, counts, own)
        return result

    def backward(self, total: Tensor) -> None:
        """Add gradients of a part's loss; of all processes the sum counts, not the mean."""
        torch.autograd.backward(total * self._process.count)

    def let_go(self) -> None:
        """Drop weights that were gathered: what a process changes of its part would not be seen."""
        if isinstance(self._called, FSDPModule):
            self._called.reshard()

    def part(self, is_last: bool) -> AbstractContextManager[Any]:
        """Around a part of a step: gradients are exchanged with the last one only."""
        if isinstance(self._called, DistributedDataParallel) and not is_last:
            return self._called.no_sync()
        if isinstance(self._called, FSDPModule):
            self._called.set_requires_gradient_sync(is_last)
        return nullcontext()


def copied(module: nn.Module, process: Process) -> DistributedDataParallel:
    """A copy in every process, whose gradients are averaged; buffers are each one's own."""
    device_ids = [process.device] if process.device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    # its name before torch 2.15
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {option: False, "device_ids": device_ids}
    return DistributedDataParallel(module, gradient_as_bucket_view=True, **options)


def _shard(module: LossOf, dtype: torch.dtype, process: Process) -> None:
    """Gradients are summed in float32, whatever the products are computed in."""
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    if process.device.type == "cuda":
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in (*module.model.encoder, *module.model.decoder):
        fully_shard(block, mp_policy=policy)
    # embeddings and heads: used at both ends of a step, so they stay whole in between
    fully_shard(module, mp_policy=policy, reshard_after_forward=False)
