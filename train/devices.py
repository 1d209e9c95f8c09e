"""Which device a run is on, and in which type it computes."""

import contextlib
import resource

import torch


def choose_device(name: str) -> torch.device:
    """The device of a configuration."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of activations: bfloat16 where the device has matrix units for it."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Products in `dtype`; parameters, norms and sums stay float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this process has had on a GPU, or altogether on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
