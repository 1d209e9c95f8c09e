"""Cross-entropy of the selected targets, by modality, and how the modalities are weighed.

Each target meets the head of its own modality only: on 4M-7 a seventh of the cost of one softmax
over all vocabularies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from fourmill.train.model import FourM
from fourmill.train.selection import Selection

Weighting = Literal["mod", "token", "token_vocab"]


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


def compute_loss(model: FourM, selection: Selection, weighting: Weighting = "mod") -> Loss:
    """The loss of a batch.

    Args:
        weighting: `mod` is the mean over all target modalities of their mean cross-entropy, those
            without targets counting as zero (the published runs); `token` is the mean over all
            targets; `token_vocab` weighs modalities by targets times vocabulary, as the
            reference's option `token` does.
    """
    output = model(selection).flatten(0, 1)
    modality = selection.target_modality.flatten()
    label = selection.target_label.flatten()
    heads = model.targets.heads()
    sums, counts = [], []
    for name in model.domains.targets:
        rows = (modality == model.domains.index(name)).nonzero().squeeze(1)
        head = heads[name][: model.domains.modality(name).vocab_size]
        # float32 whatever the model computes in: sums over a large vocabulary lose too much
        logits = F.linear(output[rows], head).float()
        sums.append(F.cross_entropy(logits, label[rows], reduction="sum"))
        counts.append(torch.tensor(len(rows), device=rows.device))
    summed, counted = torch.stack(sums), torch.stack(counts)
    return Loss(_WEIGHTINGS[weighting](model, summed, counted), summed.detach(), counted)


def _by_modality(model: FourM, sums: Tensor, counts: Tensor) -> Tensor:
    return (sums / counts.clamp(min=1)).mean()


def _by_token(model: FourM, sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum() / counts.sum().clamp(min=1)


def _by_token_and_vocabulary(model: FourM, sums: Tensor, counts: Tensor) -> Tensor:
    sizes = [model.domains.modality(name).vocab_size for name in model.domains.targets]
    weights = counts * torch.tensor(sizes, device=counts.device)
    means = sums / counts.clamp(min=1)
    return (means * weights).sum() / weights.sum().clamp(min=1)


_WEIGHTINGS: dict[Weighting, Callable[[FourM, Tensor, Tensor], Tensor]] = {
    "mod": _by_modality,
    "token": _by_token,
    "token_vocab": _by_token_and_vocabulary,
}
