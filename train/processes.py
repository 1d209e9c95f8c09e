"""One of the processes of a training, as `torchrun` or Ray start them; without, the only one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from fourmill.train.devices import choose_device
from fourmill.train.started import process_count


@dataclass(frozen=True)
class Process:
    """Which process this is, and on which device.

    Attributes:
        rank: 0 writes; all others compute alone.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values


@contextmanager
def processes(device_name: str) -> Iterator[Process]:
    """This process among those that were started together, connected for the time of a training.

    Args:
        device_name: as in a configuration; each process takes the GPU of its local rank.
    """
    device = choose_device(device_name)
    if dist.is_initialized():  # a launcher has connected them, and will part them
        yield Process(dist.get_rank(), dist.get_world_size(), _own(device))
        return
    count = process_count()
    if count == 1:
        yield Process(0, 1, device)
        return
    device = _own(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()


def _own(device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own
