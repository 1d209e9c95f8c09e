"""What came of one URL."""

from dataclasses import dataclass
from datetime import UTC, datetime

UNANSWERED = frozenset({"name", "connection", "timeout", "given_up"})
"""Outcomes without any answer: the host's fault, or our network's."""

_NEVER = datetime.fromtimestamp(0, UTC)
_AGAIN = frozenset({"connection", "timeout", "cut"})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})  # statuses that may be better the next time


@dataclass(frozen=True)
class Fetched:
    """What came of one URL.

    Attributes:
        outcome: `ok`; `status` (an answer without a picture), `opted_out`, `too_large`, `refused`
            (an address or a scheme that is not allowed), `redirects`, `name`, `connection`,
            `timeout`, `cut`, `given_up`, `protocol`.
        status: of the last answer; 0 for none.
        reason: what was found, for people; empty for `ok`.
        final_url: after redirects.
        sha256: of the body, if it is kept.
        fetched: when it ended (UTC).
        pause_seconds: that the host asked for.
    """

    url: str
    outcome: str
    status: int = 0
    reason: str = ""
    final_url: str = ""
    content_type: str = ""
    sha256: str = ""
    body: bytes = b""
    attempts: int = 1
    seconds: float = 0.0
    fetched: datetime = _NEVER
    pause_seconds: float | None = None

    @property
    def may_pass(self) -> bool:
        """Whether another attempt could end better."""
        return self.outcome in _AGAIN or (self.outcome == "status" and self.status in _PASSING)
