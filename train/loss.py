"""Cross-entropy of the selected targets, by modality, and how the modalities are weighed.

Each target meets the head of its own modality only: on 4M-7 a seventh of the cost of one softmax
over all vocabularies.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from fourmill.train.domains import Domains
from fourmill.train.model import FourM
from fourmill.train.selection import Selection

Weighting = Literal["mod_global", "mod_rank", "token", "token_vocab"]


@dataclass(frozen=True)
class Loss:
    """Sums over a batch, so that several batches can be added up exactly.

    Attributes:
        total: the weighted loss, which is differentiated.
        sums: cross-entropy by target modality, in nats; `counts` targets were predicted.
    """

    total: Float[Tensor, ""]
    sums: Float[Tensor, " modalities"]
    counts: Int64[Tensor, " modalities"]


def count_targets(domains: Domains, selection: Selection) -> Int64[Tensor, " modalities"]:
    """Targets by modality, in the order of `Domains.targets`."""
    every = torch.arange(len(domains.modalities), device=selection.target_modality.device)
    counts = (selection.target_modality.flatten()[:, None] == every).sum(0)
    return counts[[domains.index(name) for name in domains.targets]]


def weigh(
    domains: Domains,
    sums: Float[Tensor, " modalities"],
    counts: Int64[Tensor, " modalities"],
    weighting: Weighting,
) -> Float[Tensor, ""]:
    """One number of cross-entropies by modality.

    Args:
        sums: nats of the targets of a batch, or of a part of it.
        counts: targets of the whole batch; where they are, losses of its parts add up to its own.
        weighting: `mod_global` and `mod_rank` are the mean over all target modalities of their mean
            cross-entropy, those without targets counting as zero; `token` is the mean over all
            targets; `token_vocab` weighs modalities by targets times vocabulary, as the
            reference's option `token` does.
    """
    if weighting == "token":
        return sums.sum() / counts.sum().clamp(min=1)
    means = sums / counts.clamp(min=1)
    if weighting == "token_vocab":
        sizes = [domains.modality(name).vocab_size for name in domains.targets]
        weights = counts * torch.tensor(sizes, device=counts.device)
        return (means * weights).sum() / weights.sum().clamp(min=1)
    return means.mean()


def compute_loss(
    model: FourM,
    selection: Selection,
    weighting: Weighting = "mod_global",
    counts: Int64[Tensor, " modalities"] | None = None,
) -> Loss:
    """The loss of a batch.

    Args:
        weighting: see `weigh`.
        counts: targets of the whole step, where this batch is a part of it.
    """
    output = model(selection).flatten(0, 1)
    modality = selection.target_modality.flatten()
    label = selection.target_label.flatten()
    heads = model.targets.heads()
    sums = []
    for name in model.domains.targets:
        rows = (modality == model.domains.index(name)).nonzero().squeeze(1)
        head = heads[name][: model.domains.modality(name).vocab_size]
        # float32 whatever the model computes in: sums over a large vocabulary lose too much
        logits = F.linear(output[rows], head).float()
        sums.append(F.cross_entropy(logits, label[rows], reduction="sum"))
    summed, own = torch.stack(sums), count_targets(model.domains, selection)
    total = weigh(model.domains, summed, own if counts is None else counts, weighting)
    return Loss(total, summed.detach(), own)
