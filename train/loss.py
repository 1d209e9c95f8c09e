"""Cross-entropy of the selected targets, by modality, and how the modalities are weighed.

Each target meets the head of its own modality only: on 4M-7 a seventh of the cost of one softmax
over all vocabularies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fourmill.train.cross_entropy import summed_cross_entropy
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
    flat = selection.target_modality.flatten()
    return torch.stack([(flat == domains.index(name)).sum() for name in domains.targets])


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
        weights = torch.stack([n * size for n, size in zip(counts.unbind(), sizes, strict=True)])
        return (means * weights).sum() / weights.sum().clamp(min=1)
    return means.mean()


def compute_loss(
    model: FourM,
    selection: Selection,
    weighting: Weighting = "mod_global",
    counts: Int64[Tensor, " modalities"] | None = None,
    own: Sequence[int] | None = None,
) -> Loss:
    """The loss of a batch.

    Args:
        weighting: see `weigh`.
        counts: targets of the whole step, where this batch is a part of it.
        own: targets of this batch, as `count_targets` counts them; a GPU would have to be waited
            for to know them.
    """
    domains = model.domains
    counted = count_targets(domains, selection)
    numbers = counted.tolist() if own is None else own
    output = model(selection).flatten(0, 1)
    modality = selection.target_modality.flatten()
    # sorted by modality, those of each stand together, after all that is padding or no target
    order = modality.argsort(stable=True)
    label = selection.target_label.flatten()[order]
    heads = model.targets.heads()
    by_index = sorted(zip(domains.targets, numbers, strict=True), key=lambda e: domains.index(e[0]))
    sums, start = {}, len(modality) - sum(numbers)
    for name, number in by_index:
        rows = slice(start, start + number)
        head = heads[name][: domains.modality(name).vocab_size]
        sums[name] = summed_cross_entropy(output[order[rows]], head, label[rows])
        start += number
    summed = torch.stack([sums[name] for name in domains.targets])
    total = weigh(domains, summed, counted if counts is None else counts, weighting)
    return Loss(total, summed.detach(), counted)
