"""What a server says in its headers about use for training: who opts out is left out."""

from collections.abc import Mapping, Sequence

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives of `X-Robots-Tag` that forbid use: two made for it, and three that hide a picture."""

_WITH_VALUES = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
"""Directives that have a colon of their own."""


def opt_out(headers: Mapping[str, Sequence[str]], agent: str) -> str | None:
    """The header that forbids the use of what came with it, or `None`.

    `X-Robots-Tag` counts where it is for everybody or for us; `TDM-Reservation: 1` reserves the
    rights of text and data mining.

    Args:
        headers: values by name in lower case.
        agent: the name that we go by.

    >>> opt_out({"x-robots-tag": ["all, noimageai"]}, "fourmill")
    'X-Robots-Tag: noimageai'
    >>> opt_out({"x-robots-tag": ["otherbot: noindex, noai"]}, "fourmill") is None
    True
    """
    for value in headers.get("x-robots-tag", ()):
        for word in _directives_for(value.lower(), agent.lower()).split(","):
            if word.strip() in OPT_OUTS:
                return f"X-Robots-Tag: {word.strip()}"
    if any(each.strip() == "1" for each in headers.get("tdm-reservation", ())):
        return "TDM-Reservation: 1"
    return None


def _directives_for(value: str, agent: str) -> str:
    name, colon, rest = value.partition(":")
    name = name.strip()
    if not colon or "," in name or name in _WITH_VALUES:
        return value
    return rest if name in (agent, "*") else ""
