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

from fourmill.train.cross_entropy import Head, cross_entropies
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


def weights_of(
    domains: Domains, counts: Int64[Tensor, " modalities"], weighting: Weighting
) -> Float[Tensor, " modalities"]:
    """What the cross-entropies of modalities, summed over their targets, count in the loss.

    Args:
        counts: targets of the whole batch; where they are, losses of its parts add up to its own.
        weighting: `mod_global` and `mod_rank` are the mean over all target modalities of their mean
            cross-entropy, those without targets counting as zero; `token` is the mean over all
            targets; `token_vocab` weighs modalities by targets times vocabulary, as the
            reference's option `token` does.
    """
    counted = counts.clamp(min=1).float()
    if weighting == "token":
        return (1 / counts.sum().clamp(min=1)).expand_as(counted)
    if weighting == "token_vocab":
        sizes = [domains.modality(name).vocab_size for name in domains.targets]
        tokens = torch.stack([n * size for n, size in zip(counts.unbind(), sizes, strict=True)])
        return tokens / counted / tokens.sum().clamp(min=1)
    return 1 / (counted * len(domains.targets))


def compute_loss(
    model: FourM,
    selection: Selection,
    weighting: Weighting = "mod_global",
    counts: Int64[Tensor, " modalities"] | None = None,
    own: Sequence[int] | None = None,
) -> Loss:
    """The loss of a batch.

    Args:
        weighting: see `weights_of`.
        counts: targets of the whole step, where this batch is a part of it.
        own: targets of this batch, as `count_targets` counts them; a GPU would have to be waited
            for to know them.
    """
    domains = model.domains
    counted = count_targets(domains, selection)
    numbers = dict(zip(domains.targets, counted.tolist() if own is None else own, strict=True))
    output = model(selection).flatten(0, 1)
    modality = selection.target_modality.flatten()
    # sorted by modality, those of each stand together, after all that is padding
    order = modality.argsort(stable=True)[len(modality) - sum(numbers.values()) :]
    names = sorted(domains.targets, key=domains.index)
    heads = []
    for name in names:
        start = model.targets.ranges[name][0]
        heads.append(Head(start, start + domains.modality(name).vocab_size, numbers[name]))
    weights = weights_of(domains, counted if counts is None else counts, weighting)
    places = [domains.targets.index(name) for name in names]
    total, sums = cross_entropies(
        output[order], model.targets.weight, selection.target_label.flatten()[order], heads,
        torch.stack([weights[place] for place in places]),
    )  # fmt: skip
    by_place = dict(zip(places, sums.unbind(), strict=True))
    return Loss(total, torch.stack([by_place[place] for place in range(len(names))]), counted)
