"""Heads on cached examples."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from fourmill.labelers.heads import Heads
from fourmill.labelers.training.examples import Examples
from fourmill.labelers.training.metrics import Errors, Guess, Truth, errors

_BATCH = 16


def evaluate(heads: Heads, examples: list[Examples]) -> Errors:
    """Errors of heads, which compute in float32, as when they label."""
    heads.eval()
    return errors(zip(guesses(heads, examples), truths(examples), strict=True))


def guesses(heads: Heads, examples: list[Examples]) -> Iterator[Guess]:
    """What heads say of each example, in order."""
    for each in examples:
        for start in range(0, len(each["pixels"]), _BATCH):
            rows = slice(start, start + _BATCH)
            features = torch.from_numpy(each["features"][rows].astype(np.float32))
            pixels = torch.from_numpy(each["pixels"][rows].transpose(0, 3, 1, 2) / np.float32(255))
            with torch.inference_mode():
                found = heads(features, pixels)
                logits = functional.interpolate(found.logits, scale_factor=2, mode="bilinear")
            for disparity, normals, classes in zip(
                found.disparity.numpy(),
                found.normals.permute(0, 2, 3, 1).numpy(),
                logits.argmax(dim=1).to(torch.uint8).numpy(),
                strict=True,
            ):
                yield Guess(disparity, normals, classes)


def truths(examples: list[Examples]) -> Iterator[Truth]:
    """What is so, for each example, in order."""
    for each in examples:
        for row in range(len(each["pixels"])):
            yield Truth(
                each["depth"][row].astype(np.float32), each["normals"][row], each["classes"][row]
            )
