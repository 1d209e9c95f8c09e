"""Floating-point operations of a step, and how much of a device they use.

A product of matrices counts two for each multiplication and addition; norms, activations and
softmax are left out. Training is three times the forward pass: the backward pass has two products
for each of it. What is computed again to save memory is not counted.
"""

from dataclasses import dataclass

import torch

from fourmill.train.blocks import BlockConfig
from fourmill.train.domains import CONTINUOUS, Domains, continuous_width
from fourmill.train.model import ModelShape

_PEAKS = {"H100 80GB HBM3": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second by part of a device's name, as their maker gives them; of
H100s those with SXM."""


@dataclass(frozen=True)
class Flops:
    """Of the forward pass of one sample."""

    encoder: float
    decoder: float
    heads: float

    @property
    def forward(self) -> float:
        """All parts."""
        return self.encoder + self.decoder + self.heads

    @property
    def training(self) -> float:
        """Forward and backward."""
        return 3 * self.forward


def sample_flops(
    shape: ModelShape, inputs: int, targets: int, head_width: float, pixel_width: int = 0
) -> Flops:
    """Of one sample.

    Args:
        inputs: slots of the encoder, registers left out; `targets` those of the decoder.
        head_width: the mean over targets of the size of their vocabulary.
        pixel_width: numbers in what is projected to every input slot, see `projected_width`.
    """
    dim, keys = shape.dim, inputs + shape.registers
    mlp = _mlp(shape)
    self_attention = 2 * 4 * dim * dim
    encoder = shape.encoder_depth * keys * (self_attention + mlp + _scores(dim, keys))
    encoder += 2 * dim * dim * keys  # the projection of what the decoder attends to
    encoder += 2 * pixel_width * dim * inputs
    per_target = self_attention + _scores(dim, targets)
    per_target += 2 * 2 * dim * dim + _scores(dim, keys) + mlp
    context = 2 * 2 * dim * dim * keys  # keys and values of the attention to the encoder's output
    decoder = shape.decoder_depth * (targets * per_target + context)
    return Flops(float(encoder), float(decoder), 2 * dim * head_width * targets)


def projected_width(domains: Domains) -> int:
    """Numbers of pixels or vectors that are projected to every input slot."""
    inputs = [domains.modality(name) for name in domains.inputs]
    return sum(continuous_width(each) for each in inputs if each.masking in CONTINUOUS)


def peak_flops(device: torch.device) -> float | None:
    """What a device can compute a second in bfloat16; `None` where that is not known here."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS.items() if part in name), None)


def _scores(dim: int, keys: int) -> int:
    """For one query: its scores, and the mean of values that they weigh."""
    return 2 * 2 * dim * keys


def _mlp(config: BlockConfig) -> int:
    """For one token; what is padding of hidden widths does not count."""
    return 2 * (3 if config.gated else 2) * config.dim * config.hidden
