"""Numbers of a device that are asked for long before they are needed, so that nobody waits."""

from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host."""

    def __init__(self, values: Tensor) -> None:
        self._copied: Tensor = values
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            self._copied = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._copied.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def tolist(self) -> list[Any]:
        """Its values, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        result: list[Any] = self._copied.tolist()
        return result
