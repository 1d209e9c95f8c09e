"""Loss curves of a run as a picture: one small plot a modality."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourmill.manifests.errors import ConfigError
from fourmill.train.metrics import last_losses, read_metrics

_COLUMNS = 4
_INK, _TRAIN, _VAL, _FLOOR = "#222222", "#9db4d0", "#c0392b", "#888888"


def draw_curves(metrics: Path, target: Path) -> None:
    """Write a PNG of the losses in a run's `metrics.jsonl`.

    A dashed line is what guessing by the frequencies of tokens alone would reach.

    Raises:
        ConfigError: the run has no losses yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    names = sorted({name for line in lines for name in line["by_modality"]})
    if not names:
        raise ConfigError(f"{metrics}: no losses yet; `fourmill train` makes them")
    unigrams = last_losses(metrics, "unigram")
    rows = math.ceil(len(names) / _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.3 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        for kind, colour, width in (("train", _TRAIN, 1.2), ("val", _VAL, 1.8)):
            steps, values = _curve(lines, kind, name)
            axes.plot(steps, values, color=colour, lw=width, label=kind)
            if kind == "val" and values:
                axes.plot(steps[-1], values[-1], "o", color=colour, ms=3)
        if name in unigrams:
            axes.axhline(unigrams[name], color=_FLOOR, ls="--", lw=1, label="frequencies alone")
        axes.set_title(name, fontsize=10, color=_INK)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if place == 0:
            axes.legend(fontsize=8, frameon=False)
            axes.set_ylabel("nats per target", fontsize=8)
        if place >= len(names) - _COLUMNS:
            axes.set_xlabel("step", fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, metadata={"Software": None})


def _curve(
    lines: Sequence[Mapping[str, Any]], kind: str, name: str
) -> tuple[list[int], list[float]]:
    chosen = [each for each in lines if each["kind"] == kind and name in each["by_modality"]]
    return [each["step"] for each in chosen], [each["by_modality"][name] for each in chosen]
