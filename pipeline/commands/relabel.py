"""The verb that swaps an expert: label beside, compare, make current, make again what is stale."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from fourmill.labelers import registry
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.pipeline.cli import write_json
from fourmill.pipeline.commands.build import label
from fourmill.pipeline.commands.compare import agreement_json, show_agreement
from fourmill.pipeline.comparing import Agreement, changed_modalities, compare_versions
from fourmill.pipeline.config import load_config
from fourmill.pipeline.progress import console
from fourmill.pipeline.run import Run


@dataclass(frozen=True)
class _Swap:
    """What became of it.

    Attributes:
        before: the snapshot that was current; `rollback` to it undoes the swap.
        stale: modalities that were made from what was replaced, and are not made again yet.
    """

    before: str
    after: str
    agreements: list[Agreement]
    stale: list[str]


def relabel(
    root: Positional[str],
    labeler: Positional[str],
    config: Path | None = None,
    png: Path | None = None,
    samples: int | None = None,
    max_side: int = 512,
    address: str | None = None,
    json: bool = False,
) -> None:
    """One modality again with another expert: label, compare, make current, renew the tokens.

    Until the comparison is there the old labels stay current. May be killed and started again.
    Example: `fourmill relabel data/mine edges-fine --config configs/mine.yaml --png panel.png`.

    Args:
        root: the dataset.
        labeler: the new expert.
        config: the YAML file of the run that made the dataset; stale tokens are made again by it.
        png: draw the samples whose labels differ most, side by side.
        samples: compare so many samples, spread evenly; all by default.
        max_side: pixels of the long side that the expert sees.
        address: of a Ray cluster; none for this machine.
        json: print what was done as JSON.
    """
    registry.spec(labeler)
    run = None if config is None else Run(load_config(config))
    if run is not None and Path(run.config.root).absolute() != Path(root).absolute():
        raise ConfigError(f"{config} is of the dataset {run.config.root}, not of {root}")
    aside = f"relabel-{labeler}"
    label(root, (labeler,), True, aside, max_side, address=address, json=False)
    dataset = Dataset.open(root)
    before = dataset.head
    found = []
    if aside in dataset.names:
        found = _compare(dataset, aside, samples, png, address)
        dataset.switch(aside)
    if run is not None:
        run.all()
    dataset = Dataset.open(root)
    stale = [each.modality for each in dataset.status().modalities if each.is_stale]
    _tell(root, _Swap(before.id, dataset.head.id, found, stale), json)


def _compare(
    dataset: Dataset, aside: str, samples: int | None, png: Path | None, address: str | None
) -> list[Agreement]:
    before, after = dataset.head, dataset.snapshot(aside)
    found = [
        compare_versions(dataset, before, after, name, samples=samples, address=address)
        for name in changed_modalities(before, after)
    ]
    if png is not None and any(each.worst for each in found):
        from fourmill.pipeline.panels import comparison_panel

        comparison_panel(dataset, before, after, found).save(png)
    return found


def _tell(root: str, swap: _Swap, json: bool) -> None:
    if json:
        what: dict[str, Any] = {
            "before": swap.before,
            "after": swap.after,
            "agreements": [agreement_json(each) for each in swap.agreements],
            "stale": swap.stale,
        }
        write_json(what)
        return
    for each in swap.agreements:
        show_agreement(console, each)
    if swap.before == swap.after:
        console.print("nothing to do", highlight=False)
    else:
        console.print(f"undo: fourmill rollback {root} {swap.before[:12]}", highlight=False)
    if swap.stale:
        listed = ", ".join(swap.stale)
        console.print(f"stale, `fourmill run CONFIG` makes them again: {listed}", highlight=False)
