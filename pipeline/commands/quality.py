"""What `fourmill status --quality` shows: a line a modality, tiny bars, and what is odd."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from fourmill.manifests.modalities import Kind
from fourmill.manifests.quality import Quality, decoding_error
from fourmill.manifests.summaries import bin_ranges, used_share

_BARS = "▁▂▃▄▅▆▇█"
_MOST_CLASSES = 3
_WIDTH = 24  # characters of a histogram


def as_json(found: Sequence[Quality]) -> dict[str, Any]:
    """By modality, all that is known."""
    return {
        each.entry.modality: {
            "folder": each.entry.folder,
            "failed_share": each.failed,
            "seconds_per_sample": each.seconds_per_sample,
            "statistics": each.statistics,
            "findings": [asdict(finding) for finding in each.findings],
        }
        for each in found
    }


def show(out: Console, found: Sequence[Quality]) -> None:
    """A table, and below it what is odd."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("modality", "labels", "failed", "empty", "ms/sample"):
        table.add_column(column, justify="left" if column == "modality" else "right")
    table.add_column("labels look like")
    for each in found:
        statistics = each.statistics
        table.add_row(
            each.entry.modality,
            f"{statistics['labels']:,}" if "labels" in statistics else "–",
            f"{each.failed:.1%}",
            _share(statistics, "empty"),
            f"{1000 * each.seconds_per_sample:,.1f}",
            looks(each),
        )
    out.print(table)
    for each in found:
        for finding in each.findings:
            place = finding.modality
            place += "" if finding.shard is None else f", shard {finding.shard}"
            out.print(f"odd: {place}: {finding.what}; look: {finding.look}", markup=False)


def bars(counts: Sequence[int]) -> str:
    """Counts as bars of one character each; what is there but small is told from nothing.

    >>> bars([0, 1, 50, 100])
    ' ▁▅█'
    """
    top = max(counts, default=0)
    return "".join(
        _BARS[round(count / top * (len(_BARS) - 1))] if count else " " for count in counts
    )


def looks(found: Quality) -> str:
    """The labels of a version in one line."""
    statistics, definition = found.statistics, found.entry.definition
    parts = []
    if "histogram" in statistics and definition.kind is not Kind.TOKENS:
        parts.append(_histogram(found))
    if "counts" in statistics:
        parts.append(f"how many: {_counted(statistics['counts'])}")
    if "scores" in statistics:
        parts.append(f"scores: 0 {bars(statistics['scores'])} 1")
    if "classes" in statistics:
        parts.append(_frequent(statistics["classes"]))
    if "used" in statistics:
        parts.append(f"{used_share(statistics, definition):.0%} of the ids used")
    if "decoded" in statistics:
        parts.append(f"decoded again, off by {decoding_error(statistics):.4g}")
    return "; ".join(parts)


def _histogram(found: Quality) -> str:
    counts = found.statistics["histogram"]
    rows = 3 if found.entry.definition.kind is Kind.NORMAL else 1
    size = len(counts) // rows
    drawn = (narrow(counts[row * size :][:size], _WIDTH // rows) for row in range(rows))
    low, high = bin_ranges(found.entry.definition, found.entry.encoding)
    return f"{low} {' '.join(map(bars, drawn))} {high}"


def narrow(counts: Sequence[int], width: int) -> list[int]:
    """Counts in fewer bins, each of two neighbours, until they are no more than `width`.

    >>> narrow([1, 2, 3, 4, 5], 3)
    [3, 7, 5]
    """
    bins = list(counts)
    while len(bins) > width:
        bins = [sum(bins[place : place + 2]) for place in range(0, len(bins), 2)]
    return bins


def _counted(counts: Sequence[int]) -> str:
    """From the first to the last power of two that occurs."""
    there = [place for place, count in enumerate(counts) if count]
    if not there:
        return "none"
    first, last = there[0], there[-1]
    low, high = (1 << first) >> 1, (1 << last) - 1
    return f"{low} {bars(counts[first : last + 1])} {high}"


def _frequent(classes: Mapping[str, int]) -> str:
    total = sum(classes.values())
    most = sorted(classes, key=lambda name: (-classes[name], name))[:_MOST_CLASSES]
    shown = ", ".join(f"{name} {classes[name] / total:.0%}" for name in most)
    return f"{len(classes)} classes: {shown}" if len(classes) > 1 else f"one class: {shown}"


def _share(statistics: Mapping[str, Any], name: str) -> str:
    if name not in statistics or not statistics["labels"]:
        return "–"
    return f"{statistics[name] / statistics['labels']:.1%}"
