"""A small trained model of a relation that is known: what two conditions say, mixed by chance.

Each token of the target is what condition A says in 4 of 10 cases, what condition B says in as
many, and any in the rest; so is each word.
"""

import torch
from torch import Tensor

from fourmill.manifests.modalities import Kind, Masking, Modality, token_modality
from fourmill.train.batch import Batch
from fourmill.train.conditions import Conditions
from fourmill.train.config import MaskingConfig
from fourmill.train.domains import Domains
from fourmill.train.loss import compute_loss
from fourmill.train.masking import Masking as Masks
from fourmill.train.model import FourM, ModelShape

VALUES = 8
FIRST_WORD = 204  # after the sentinels
A, B = (token_modality(name, 16, 8, VALUES) for name in "ab")
TARGET = token_modality("target", 32, 8, VALUES)
TEXT = Modality("words", Kind.TOKENS, "words", "npy", Masking.SEQUENCE, 220, 8)
DOMAINS = Domains.of([A, B, TARGET, TEXT])
COMPONENTS = ([A.name], [B.name], [A.name, B.name], [TARGET.name], [TEXT.name])
MASKING = MaskingConfig.model_validate({
    "input_tokens": (1, 8), "target_tokens": 16,
    "mixture": [{"inputs": dict.fromkeys(names, 1.0)} for names in COMPONENTS],
})  # fmt: skip


def batch(step: int, samples: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    a, b = torch.randint(VALUES, (2, samples, 1), generator=generator)

    def said(count: int) -> Tensor:
        chance = torch.rand(samples, count, generator=generator)
        any_value = torch.randint(VALUES, (samples, count), generator=generator)
        return torch.where(chance < 0.4, a, torch.where(chance < 0.8, b, any_value))

    words = torch.cat([FIRST_WORD + said(5), torch.tensor([[3, 0, 0]]).expand(samples, -1)], 1)
    tokens = {A.name: a.expand(-1, 4), B.name: b.expand(-1, 4), TARGET.name: said(16)}
    sample = torch.arange(samples) + step * samples
    small = {name: each.to(torch.int16) for name, each in (tokens | {TEXT.name: words}).items()}
    return Batch(sample, torch.zeros_like(sample), small)


def train(registers: int = 0, steps: int = 240) -> FourM:
    shape = ModelShape(32, 4, encoder_depth=1, decoder_depth=1, registers=registers)
    model = FourM(DOMAINS, shape)
    masks = Masks(DOMAINS, MASKING, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        optimizer.zero_grad()
        compute_loss(model, masks(batch(step, 64))).total.backward()
        optimizer.step()
    model.masking = MASKING
    return model.eval()


def two_opinions(samples: int) -> Conditions:
    """A says 2, B says 5."""
    tokens = {A.name: torch.full((samples, 4), 2), B.name: torch.full((samples, 4), 5)}
    return Conditions(torch.arange(samples), tokens)
