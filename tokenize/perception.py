"""What a network sees of the difference between pictures: a distance of pairs, and one of sets.

The network is the caller's: this folder knows of none.
Shapes: B pictures, S their side, C channels, D features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_BATCH = 16
_LEAST = 8  # pictures of which a distance between sets is told

Look = Callable[[Float[Tensor, "B 3 S S"]], tuple[Sequence[Tensor], Float[Tensor, "B D"]]]
"""Pictures from 0 to 1 → feature maps `[B, C, h, w]` of some layers, and pooled features."""


@dataclass(frozen=True)
class Perception:
    """A network's view of pictures.

    Attributes:
        name: of the network, as the metrics' names have it.
    """

    name: str
    look: Look


@torch.inference_mode()
def perceived(
    perception: Perception,
    inputs: Float[Tensor, "B 3 S S"],
    reconstructions: Mapping[str, Float[Tensor, "B 3 S S"]],
) -> dict[str, dict[str, float]]:
    """How far reconstructions of pictures (-1 to 1) are from them, by their names.

    Returns:
        `lpips_<network>`, the distance of the feature maps, the mean over pictures; and
        `rfid_<network>`, the Frechet distance of the pooled features, if there are at least 8
        pictures. It is larger for few pictures than for many: only values of as many pictures and
        of one network may be compared, and none is the published metric, which is of Inception's
        features of 50,000.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in reconstructions}
    pooled: dict[str, list[Tensor]] = {name: [] for name in ("", *reconstructions)}
    for start in range(0, len(inputs), _BATCH):
        rows = slice(start, start + _BATCH)
        maps, vectors = perception.look(_unit(inputs[rows]))
        pooled[""].append(vectors)
        for name, each in reconstructions.items():
            other_maps, other_vectors = perception.look(_unit(each[rows]))
            parts[name].append(map_distance(maps, other_maps))
            pooled[name].append(other_vectors)
    truth = torch.cat(pooled[""])
    found = {}
    for name in reconstructions:
        found[name] = {f"lpips_{perception.name}": float(torch.cat(parts[name]).mean())}
        if len(truth) >= _LEAST:
            distance = frechet(truth, torch.cat(pooled[name]))
            found[name][f"rfid_{perception.name}"] = distance
    return found


def map_distance(maps: Sequence[Tensor], others: Sequence[Tensor]) -> Float[Tensor, " B"]:
    """Squared difference of feature vectors of length 1, the mean over places, summed over layers.

    As in LPIPS (Zhang et al. 2018) before it learns weights of channels.
    """
    layers = [
        (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean((1, 2))
        for one, other in zip(maps, others, strict=True)
    ]
    return torch.stack(layers).sum(0)


def frechet(one: Float[Tensor, "N D"], other: Float[Tensor, "M D"]) -> float:
    """Frechet distance of the normal distributions that fit two sets best (Heusel et al. 2017).

    The trace of the covariances' root needs no D x D matrix: it is the sum of the singular values
    of the product of both centred sets, as covariances are products of these with themselves.
    """
    ours, theirs = one.double(), other.double()
    apart = (ours.mean(0) - theirs.mean(0)).square().sum()
    ours, theirs = (
        (each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (ours, theirs)
    )  # fmt: skip
    common = torch.linalg.svdvals(ours @ theirs.T).sum()
    distance = apart + ours.square().sum() + theirs.square().sum() - 2 * common
    return max(0.0, float(distance))


def _unit(values: Tensor) -> Tensor:
    return 0.5 * (values.clamp(-1, 1) + 1)
