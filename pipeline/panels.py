"""Panels to judge by eye: what two experts say of samples, and what tokenizers keep of them."""

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
from fourmill.pipeline.judging import Verdict

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


def tokenizer_panel(
    verdicts: Sequence[Verdict], samples: int = 3, cell: int = CELL
) -> Image.Image | None:
    """A row a tokenizer: of some samples the crop, its tokens, and the simpler codes beside them.

    What is beside a crop is drawn in its colours. `None` if no tokenizer could be decoded.
    """
    from fourmill.tokenize.evaluate import K_MEANS, PATCH_MEAN, TOKENS, as_labels

    kinds = (TOKENS, K_MEANS, PATCH_MEAN)
    rows, titles = [], []
    for each in verdicts:
        found, definition = each.comparison, each.definition
        if found is None or definition is None or not found.reconstructions:
            continue
        cells = []
        for place in np.linspace(0, found.crops - 1, samples).round().astype(int).tolist():
            (truth,) = as_labels(definition, found.inputs[place : place + 1])
            cells.append(render(definition, truth, cell))
            for name in kinds:
                values = found.reconstructions.get(name)
                label = None
                if values is not None:
                    (label,) = as_labels(definition, values[place : place + 1])
                cells.append(render(definition, label, cell, like=truth))
        rows.append(cells)
        titles.append(_verdict(each))
    if not rows:
        return None
    columns = ["original", "from tokens", "k-means of patches", "mean of each patch"] * samples
    title = "What tokens keep, beside as many codes of k-means and beside patches' exact means"
    return sheet(rows, columns, titles, title=title)


def _verdict(verdict: Verdict) -> str:
    assert verdict.comparison is not None
    first = verdict.comparison.metrics[0]
    spec = verdict.spec
    lines = [
        spec.reads, f"{spec.max_tokens} tokens", f"of {spec.vocab_size:,} codes",
        f"{first.metric.replace('_', ' ')} {first.tokenizer:.3g}",
    ]  # fmt: skip
    others = {"k-means": first.k_means, "patch mean": first.patch_mean}
    return "\n".join(
        [*lines, *(f"{name} {value:.3g}" for name, value in others.items() if value is not None)]
    )


def _pair(
    found: Agreement, one: Label | None, other: Label | None, image: NDArray[np.uint8], cell: int
) -> list[NDArray[np.uint8]]:
    before, after = found.before.definition, found.after.definition
    # depth has no scale that both experts share
    like = one if before.kind in (Kind.PLANE, Kind.FEATURE_MAP, Kind.VECTOR) else None
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
