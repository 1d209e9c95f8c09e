"""The loss of guessing by frequency alone: what a model that learned anything stays below."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fourmill.train.domains import Domains
from fourmill.train.selection import Selection


def unigram_losses(
    domains: Domains, train: Iterable[Selection], val: Iterable[Selection]
) -> dict[str, float]:
    """Cross-entropy of the targets of `val` under the frequencies of those of `train`, in nats.

    Each id is counted once more than it was seen, so that none is impossible.
    """
    seen, asked = _count(domains, train), _count(domains, val)
    losses = {}
    for name in domains.targets:
        chance = (seen[name] + 1) / (seen[name] + 1).sum()
        total = asked[name].sum()
        if total:
            losses[name] = float(-(asked[name] * chance.log()).sum() / total)
    return losses


def _count(domains: Domains, selections: Iterable[Selection]) -> dict[str, Tensor]:
    counts = {
        name: torch.zeros(domains.modality(name).vocab_size, dtype=torch.float64)
        for name in domains.targets
    }
    for each in selections:
        for name, count in counts.items():
            label = each.target_label[each.target_modality == domains.index(name)]
            count += torch.bincount(label, minlength=len(count))
    return counts
