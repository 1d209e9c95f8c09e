"""The verbs that compare snapshots and choose between them: diff, switch."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.life import Change
from fourmill.pipeline.cli import write_json
from fourmill.pipeline.comparing import Agreement, changed_modalities, compare_versions

_SHOWN = 5


def diff(
    root: Positional[str],
    before: Positional[str],
    after: Positional[str] = "HEAD",
    modality: tuple[str, ...] = (),
    labels: bool = False,
    samples: int | None = None,
    most: int = 10,
    png: Path | None = None,
    address: str | None = None,
    json: bool = False,
) -> None:
    """What differs between two snapshots; with `--modality` or `--labels` also how far labels do.

    Example: `fourmill diff data/mine HEAD finer --modality canny_edge --png panel.png`.

    Args:
        root: the dataset.
        before: a snapshot: the beginning of its id (`fourmill log` lists them), `HEAD`, `HEAD~2`,
            or the name that it was put aside under.
        after: another one.
        modality: compare the labels of these.
        labels: compare the labels of all modalities that changed.
        samples: look at so many samples, spread evenly; at all by default.
        most: how many of the samples that differ most to list.
        png: draw those that differ most, side by side.
        address: of a Ray cluster to compare on; none for this machine.
        json: print JSON.
    """
    dataset = Dataset.open(root)
    snapshots = dataset.snapshot(before), dataset.snapshot(after)
    changes = dataset.diff(before, after)
    names = modality or (changed_modalities(*snapshots) if labels or png else ())
    found = [
        compare_versions(dataset, *snapshots, name, samples=samples, most=most, address=address)
        for name in names
    ]
    if json:
        write_json(
            [agreement_json(each) for each in found] if names else [_change(e) for e in changes]
        )
    else:
        for change in changes:
            _out().print(
                f"{change.kind:<8} {change.modality} {'; '.join(change.reasons)}", markup=False
            )
        if not changes:
            _out().print("no difference")
        for each in found:
            show_agreement(_out(), each)
    if png is not None:
        from fourmill.pipeline.panels import comparison_panel

        if not any(each.worst for each in found):
            raise ConfigError(f"{png}: no sample has both labels, so there is nothing to draw")
        comparison_panel(dataset, *snapshots, found).save(png)
        sys.stderr.write(f"wrote {png}\n")


def switch(root: Positional[str], name: Positional[str], drop: bool = False) -> None:
    """Make what `label --aside NAME` made current, in one step; `fourmill rollback` undoes it.

    Args:
        root: the dataset.
        name: that it was put aside under; `fourmill log` lists them.
        drop: forget it instead; `fourmill gc` then frees it.
    """
    dataset = Dataset.open(root)
    if drop:
        dataset.drop(name)
        _out().print(f"forgot {name}; `fourmill gc {root} --unfinished` frees it now")
        return
    head = dataset.switch(name)
    _out().print(f"current: {head.id[:12]}, {head.message}")
    stale = [each for each in dataset.status().modalities if each.is_stale]
    if stale:
        listed = ", ".join(f"{each.modality} ({each.state})" for each in stale)
        _out().print(f"to be made again by `fourmill run`: {listed}", markup=False)


def agreement_json(found: Agreement) -> dict[str, Any]:
    """For programs; a measure that nothing tells is null."""
    return {
        "modality": found.modality,
        "before": {"folder": found.before.folder, "producer": found.before.producer.name},
        "after": {"folder": found.after.folder, "producer": found.after.producer.name},
        "headline": found.headline,
        "samples": {
            "both": found.both, "only_before": found.only_before, "only_after": found.only_after,
            "neither": found.neither,
        },
        "means": _finite(found.means),
        "over_all": _finite(found.over_all),
        "worst": [
            {"key": each.key, "shard": each.shard, "row": each.row, **_finite(each.measures)}
            for each in found.worst
        ],
    }  # fmt: skip


def show_agreement(out: Console, found: Agreement) -> None:
    """A modality's agreement in a few lines, and the samples that differ most."""
    out.print(
        f"\n{found.modality}: {found.before.producer.name} ({found.before.folder}) beside "
        f"{found.after.producer.name} ({found.after.folder})", markup=False,
    )  # fmt: skip
    missing = found.only_before + found.only_after + found.neither
    lacking = (
        f"; {found.only_before} only before, {found.only_after} only after, {found.neither} neither"
    )
    out.print(f"  samples with both labels: {found.both}{lacking if missing else ''}")
    _rows(out, "mean of samples", found.means)
    _rows(out, "over all", found.over_all)
    if found.worst:
        listed = ", ".join(
            f"{each.key} ({each.measures[found.headline]:.2f})" for each in found.worst[:_SHOWN]
        )
        out.print(f"  least {_spoken(found.headline)}: {listed}", markup=False)


def _rows(out: Console, title: str, measures: Mapping[str, float]) -> None:
    if measures:
        told = ", ".join(f"{_spoken(name)} {value:.3f}" for name, value in measures.items())
        out.print(f"  {title}: {told}")


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _finite(measures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in measures.items()}


def _change(change: Change) -> dict[str, Any]:
    return {
        "modality": change.modality,
        "kind": change.kind,
        "reasons": change.reasons,
        "before": change.before and change.before.folder,
        "after": change.after and change.after.folder,
    }


def _out() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)
