"""The verb that marks samples by what their labels say."""

import sys
from dataclasses import asdict

from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.pipeline.cli import write_json
from fourmill.pipeline.conditions import parse_condition
from fourmill.pipeline.marking import mark as mark_samples


def mark(
    root: Positional[str],
    name: Positional[str],
    where: tuple[str, ...],
    address: str | None = None,
    json: bool = False,
) -> None:
    """Mark the samples that keep conditions, as a modality `mark_NAME`; none is dropped.

    Example: `fourmill mark data/mine sure --where "score(det) >= 0.5" "count(caption) >= 3"`.

    Args:
        root: the dataset.
        name: of the mark; readers ask for it with `Dataset.samples(…, where="mark_NAME")`.
        where: what has to hold, all of it; docs/quality.md lists what can be asked.
        address: of a Ray cluster; none for this machine.
        json: print JSON.
    """
    if not where:
        raise ConfigError("--where: give at least one condition, such as 'score(det) >= 0.5'")
    marked = mark_samples(Dataset.open(root), name, list(map(parse_condition, where)), address)
    if json:
        write_json(asdict(marked))
        return
    share = marked.keep / max(1, marked.samples)
    sys.stdout.write(
        f"{marked.modality}: {marked.keep} of {marked.samples} samples are to keep ({share:.0%})\n"
    )
