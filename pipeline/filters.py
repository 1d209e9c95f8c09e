"""What of a corpus is left out: too small, too long, of poor scores; each with its reason."""

from collections.abc import Mapping
from typing import Any

from fourmill.manifests.errors import SampleError
from fourmill.pipeline.config import FilterConfig

STAGE = "filter"
"""Of the failures that list what was left out."""


def refuse_size(filters: FilterConfig, height: int, width: int) -> None:
    """Complain about a picture of the wrong size, in pixels.

    Raises:
        SampleError: it says which.
    """
    short, long = sorted((height, width))
    if short < filters.min_side:
        raise SampleError(
            STAGE, f"{width} x {height} pixels, the short side has less than {filters.min_side}"
        )
    if filters.max_aspect and long > filters.max_aspect * short:
        raise SampleError(
            STAGE, f"{width} x {height} pixels, longer than {filters.max_aspect:g} to 1"
        )


def refuse_scores(filters: FilterConfig, record: Mapping[str, Any]) -> None:
    """Complain about scores that are out of bounds or not there.

    Raises:
        SampleError: it names the score.
    """
    for name, least in filters.min_scores.items():
        value = _score(record, name)
        if value < least:
            raise SampleError(STAGE, f"{name} is {value:g}, less than {least:g}")
    for name, most in filters.max_scores.items():
        value = _score(record, name)
        if value > most:
            raise SampleError(STAGE, f"{name} is {value:g}, more than {most:g}")


def refuse_listed(filters: FilterConfig, record: Mapping[str, Any]) -> None:
    """Complain about what a list says of a picture that nobody has seen yet.

    Raises:
        SampleError: its scores, or the size that the list gives.
    """
    refuse_scores(filters, record)
    height, width = record.get("height"), record.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        refuse_size(filters, height, width)


def _score(record: Mapping[str, Any], name: str) -> float:
    lower = {each.lower(): value for each, value in record.items()}
    try:
        return float(lower.get(name.lower(), ""))
    except (TypeError, ValueError):
        raise SampleError(STAGE, f"the corpus gives it no {name}") from None
