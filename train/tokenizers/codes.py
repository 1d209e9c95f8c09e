"""How a code book is used during training, and whether it is about to collapse."""

import torch
from jaxtyping import Int
from torch import Tensor

from fourmill.train.processes import Process

_LOW = 0.02  # share of what could be used, below which a code book is of little use
_FALLEN = 0.5  # share of the best perplexity so far
_ENOUGH = 2.0  # tokens for each code, before a count says anything


class CodeUse:
    """Counts of codes between two lines of the log.

    Args:
        codes: of one code book.
        best: highest perplexity so far.
    """

    def __init__(self, codes: int, device: torch.device, best: float = 0.0) -> None:
        self._counts = torch.zeros(codes, device=device, dtype=torch.int64)
        self._best = best

    def add(self, tokens: Int[Tensor, "..."]) -> None:
        """Count the tokens of a batch."""
        self._counts += torch.bincount(tokens.reshape(-1), minlength=len(self._counts))

    def take(self, process: Process) -> tuple[dict[str, float], str | None]:
        """`codes_used` (a share), `perplexity` of all processes' tokens, and a warning if there is
        reason for one; counting begins anew."""
        counts = process.total(self._counts.clone()).double()
        self._counts.zero_()
        total = float(counts.sum())
        shares = counts[counts > 0] / max(total, 1.0)
        perplexity = float((-(shares * shares.log()).sum()).exp())
        found = {
            "codes_used": round(len(shares) / len(counts), 4), "perplexity": round(perplexity, 2),
        }  # fmt: skip
        warning = self._warning(perplexity, total)
        self._best = max(self._best, perplexity)
        return found, warning

    def _warning(self, perplexity: float, tokens: float) -> str | None:
        possible = len(self._counts)
        if tokens < _ENOUGH * possible:
            return None
        advice = (
            "lower `lr`, raise `restart_below` or `commitment`, take a larger batch or fewer "
            "`network.codes`"
        )
        if perplexity < _FALLEN * self._best:
            return (
                f"the code book is collapsing: perplexity fell from {self._best:.1f} to "
                f"{perplexity:.1f}; {advice}"
            )
        if perplexity < max(2.0, _LOW * possible):
            return (
                f"the code book is hardly used: a perplexity of {perplexity:.1f} of {possible} "
                f"codes; {advice}"
            )
        return None
