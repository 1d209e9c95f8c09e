"""What an evaluation found, for programs (JSON) and for people (Markdown)."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fourmill.train.evaluation.contest import Judged, Result
from fourmill.train.evaluation.figures import Figure, published
from fourmill.train.evaluation.metric import is_error


def task_record(result: Result) -> dict[str, Any]:
    """One task as JSON; scores that nothing is known of are null."""
    task = result.task
    return {
        "task": task.name,
        "target": task.target,
        "truth": task.truth.name,
        "kind": task.predicted.kind.value,
        "inputs": sorted(task.inputs),
        "samples": len(result.samples),
        "skipped": dict(result.skipped),
        "ordered_by": result.headline,
        "scores": {name: _known(scores) for name, scores in result.columns.items()},
        "details": dict(result.details),
        "published": [_figure_record(each) for each in _published(result)],
        "notes": list(result.notes),
    }


def sample_records(result: Result) -> list[dict[str, Any]]:
    """Scores of every sample, in the order of the split."""
    return [
        {"key": each.key, **_known(each.scores)} for each in result.samples
    ]  # fmt: skip


def ordered(result: Result) -> list[Judged]:
    """Samples from best to worst, those whose score is not known left out."""
    known = [each for each in result.samples if not math.isnan(each.scores[result.headline])]
    sign = 1 if is_error(result.headline) else -1
    return sorted(known, key=lambda each: sign * each.scores[result.headline])


def markdown(whole: Mapping[str, Any]) -> str:
    """The page of an evaluation, see `task_record` and the folder's `report.json`."""
    lines = [
        f"# {whole['model']} on {whole['root']}", "",
        f"Snapshot {whole['snapshot'][:12]}, split `{whole['settings']['split']}`; seed "
        f"{whole['settings']['seed']}.", "",
    ]  # fmt: skip
    for record in whole["tasks"]:
        lines += _section(record)
    if losses := whole.get("cross_entropy"):
        lines += ["## Cross-entropy on frozen masks", ""]
        lines += _table(["tokens", "nats a target"], [[n, _number(v)] for n, v in losses.items()])
    lines += [f"- {each}" for each in whole["notes"]]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _section(record: Mapping[str, Any]) -> list[str]:
    columns: Mapping[str, Mapping[str, float | None]] = record["scores"]
    counted = f"{record['samples']} samples"
    for reason, count in record["skipped"].items():
        counted += f"; {count} left out: {reason}"
    lines = [
        f"## {record['task']} from {', '.join(record['inputs'])}", "",
        f"`{record['target']}` beside `{record['truth']}`: {counted}.", "",
    ]  # fmt: skip
    names = list(dict.fromkeys(name for scores in columns.values() for name in scores))
    rows = [
        [f"{name} {'↓' if is_error(name) else '↑'}"]
        + [_number(scores.get(name)) for scores in columns.values()]
        for name in names
    ]
    lines += _table(["metric", *columns], rows)
    lines += _beside(record["published"])
    lines += [f"- {each}" for each in record["notes"]]
    if (picture := record.get("panel")) is not None:
        lines += ["", f"![best, median and worst]({picture})"]
    return [*lines, ""]


def _published(result: Result) -> list[Figure]:
    """Figures of others that the model's scores may stand beside: all are of pixels alone."""
    if not all(name.startswith("rgb@") for name in result.task.inputs):
        return []
    own = next(iter(result.columns.values()))
    names = {name for name, value in own.items() if not math.isnan(value)}
    return published(result.task.predicted.kind, names)


def _figure_record(figure: Figure) -> dict[str, Any]:
    return {name: value for name, value in vars(figure).items() if name != "kind"}


def _beside(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of published figures."""
    if not figures:
        return []
    heads = ["model", "metric", "value", "data", "how", "source"]
    rows = [
        [_number(each[head]) if head == "value" else str(each[head]) for head in heads]
        for each in figures
    ]
    title = "Published, and comparable on the same data, split and inputs alone:"
    return [title, "", *_table(heads, rows)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell or ' ' for cell in row)} |" for row in lines] + [""]


def _number(value: float | None) -> str:
    """Three significant digits or four, as tables have them.

    >>> _number(0.71234), _number(21.68), _number(None)
    ('0.712', '21.7', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _known(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in scores.items()}
