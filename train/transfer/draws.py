"""Random draws that follow from a seed, whoever else draws in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawing_from(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draws of torch and numpy follow from a seed for a while; then go on as if nothing had been.

    Args:
        device: whose draws, beside those of the CPU.
    """
    kept = np.random.get_state()
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(kept)


def seed_of(seed: int, number: int, part: int = 0) -> int:
    """Of what is drawn for one step, or one sample, of a training."""
    return ((seed * 1_000_003 + number) * 4099 + part) % 2**63
