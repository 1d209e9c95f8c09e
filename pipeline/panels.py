"""The panel of a comparison: samples in rows, what both experts say of them side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.differing import difference
from fourmill.manifests.labels import Label, decode_image
from fourmill.manifests.modalities import Kind, modality
from fourmill.manifests.render import render, sheet
from fourmill.manifests.snapshots import Snapshot
from fourmill.pipeline.comparing import Agreement, Differing

CELL = 168  # pixels of a picture's side


def comparison_panel(
    dataset: Dataset,
    before: Snapshot,
    after: Snapshot,
    found: Sequence[Agreement],
    rows: int = 6,
    cell: int = CELL,
) -> Image.Image:
    """The samples whose labels agree least, with both labels of each modality.

    Labels beside each other are drawn in the same colours for the same values; where labels cover
    the picture, a third column shows where they differ, bright where they do most.
    """
    samples = _worst(found, rows)
    pictures = []
    for sample in samples:
        image = decode_image(dataset.shard("rgb", sample.shard).payload(sample.row), max_side=512)
        cells = [render(modality("rgb"), image, cell)]
        for each in found:
            shards = [
                dataset.shard(each.modality, sample.shard, snapshot) for snapshot in (before, after)
            ]
            one, other = (shard.label(sample.row) for shard in shards)
            cells += _pair(each, one, other, image, cell)
        pictures.append(cells)
    columns = ["rgb"]
    for each in found:
        columns += [f"{each.modality}: {e.producer.name}" for e in (each.before, each.after)]
        columns += ["where they differ"] * each.before.definition.kind.is_dense
    titles = [_title(each, found) for each in samples]
    return sheet(pictures, columns, titles, title=f"The {len(samples)} samples that agree least")


def _pair(
    found: Agreement, one: Label | None, other: Label | None, image: NDArray[np.uint8], cell: int
) -> list[NDArray[np.uint8]]:
    before, after = found.before.definition, found.after.definition
    # depth has no scale that both experts share
    like = one if before.kind in (Kind.FEATURE_MAP, Kind.VECTOR) else None
    cells = [render(before, one, cell, image), render(after, other, cell, image, like=like)]
    if before.kind.is_dense:
        cells.append(difference(before, one, after, other, cell, image))
    return cells


def _worst(found: Sequence[Agreement], rows: int) -> list[Differing]:
    """Of each modality in turn the next worst sample, none twice."""
    chosen: dict[str, Differing] = {}
    longest = max((len(each.worst) for each in found), default=0)
    for place in range(longest):
        for each in found:
            if place < len(each.worst):
                chosen.setdefault(each.worst[place].key, each.worst[place])
    return list(chosen.values())[:rows]


def _title(sample: Differing, found: Sequence[Agreement]) -> str:
    lines = [sample.key]
    for each in found:
        for worst in each.worst:
            if worst.key == sample.key:
                spoken = each.headline.replace("_", " ")
                lines.append(f"{spoken} {worst.measures[each.headline]:.2f}")
    return "\n".join(lines)
