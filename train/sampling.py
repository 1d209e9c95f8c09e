"""Ids from scores: the likeliest one, or a draw, of all ids or of the likelier ones."""

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from fourmill.manifests.errors import GenerationError
from fourmill.train.schedules import GenerationStep

_FEW = 512  # ids that nearly always hold `top_p`; finding them is faster than sorting all


def draw(
    logits: Float[Tensor, "batch slots vocab"],
    step: GenerationStep,
    temperature: float,
    noise: Float64[Tensor, "batch slots"],
) -> tuple[Int64[Tensor, "batch slots"], Float[Tensor, "batch slots"]]:
    """One id for each slot, and its probability among those that could be drawn.

    Which can be drawn is judged before the temperature, as the reference does. Where a score is NaN
    or infinite, or all are -inf, the probability is NaN: see `refuse_not_finite`.

    Args:
        noise: in (0, 1); the same numbers draw the same ids.
    """
    if temperature == 0:
        best, token = logits.max(-1)
        return token, (best - logits.logsumexp(-1)).exp()
    if not step.top_k and step.top_p == 1:
        return _draw(logits / temperature, noise)
    ranked, order = _likeliest(logits, step)
    if step.top_p < 1:
        probability = (ranked - logits.logsumexp(-1, keepdim=True)).exp()
        before = probability.cumsum(-1) - probability
        ranked = ranked.masked_fill(before >= step.top_p, -torch.inf)
    place, sureness = _draw(ranked / temperature, noise)
    return order.gather(-1, place[..., None])[..., 0], sureness


def refuse_not_finite(is_finite: Bool[Tensor, ""], target: str, what: str = "scores") -> None:
    """Refuse what a model gave if it is not numbers; this waits for the device.

    Args:
        is_finite: whether all is, such as the probabilities that `draw` gave.
        what: the model gave for the target.

    Raises:
        GenerationError: it is not.
    """
    if bool(is_finite):
        return
    message = f"{target}: the model's {what} are not finite"
    if torch.is_autocast_enabled(is_finite.device.type):
        raise GenerationError(
            f"{message}: they are too large for half precision, or the weights are damaged: "
            f"compute in float32 (--dtype float32), or take another checkpoint"
        )
    raise GenerationError(f"{message}: the weights are damaged: take another checkpoint")


def _likeliest(
    logits: Float[Tensor, "batch slots vocab"], step: GenerationStep
) -> tuple[Float[Tensor, "batch slots few"], Int64[Tensor, "batch slots few"]]:
    """Scores in falling order, and whose they are: all that can be drawn, and maybe more."""
    every = logits.shape[-1]
    count = min(step.top_k or every, every)
    if count > _FEW and step.top_p < 1:
        ranked, order = logits.topk(_FEW)
        held = (ranked - logits.logsumexp(-1, keepdim=True)).exp().sum(-1)
        if bool((held >= step.top_p).all()):
            return ranked, order
    if count < every:
        return tuple(logits.topk(count))  # type: ignore[return-value]
    ranked, order = logits.sort(-1, descending=True)
    return ranked, order


def _draw(
    scores: Float[Tensor, "batch slots vocab"], noise: Float64[Tensor, "batch slots"]
) -> tuple[Int64[Tensor, "batch slots"], Float[Tensor, "batch slots"]]:
    probability = scores.softmax(-1)
    total = probability.cumsum(-1)
    level = noise.to(total.dtype)[..., None] * total[..., -1:]
    token = torch.searchsorted(total, level).clamp(max=scores.shape[-1] - 1)
    return token[..., 0], probability.gather(-1, token)[..., 0]
