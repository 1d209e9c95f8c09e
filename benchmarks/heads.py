"""How good the depth, normal and class heads are, beside simpler ways to guess.

    python benchmarks/heads.py DATASET_ROOT --baselines FOLDER [--json]

The dataset is one of `builtin:rooms`; its `val` shows furniture that nobody was trained on. The
folder holds the baselines that are networks, trained by the same program on the same frames:

    python -m fourmill.labelers.training.heads ROOT --out FOLDER/linear --linear
    python -m fourmill.labelers.training.heads ROOT --out FOLDER/pixels --features pixels
"""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from fourmill.labelers.dense import WEIGHTS_FILE
from fourmill.labelers.heads import load_heads
from fourmill.labelers.training.evaluation import evaluate, truths
from fourmill.labelers.training.examples import Examples, cached_examples
from fourmill.labelers.training.metrics import Errors, errors
from fourmill.labelers.training.statistics import RowStatistics, always

NEEDS = "DATASET_ROOT --baselines FOLDER"

_COLUMNS = {
    "abs_rel": ("AbsRel", "less"),
    "delta1": ("delta1", "more"),
    "normal_median_degrees": ("median deg", "less"),
    "normal_mean_degrees": ("mean deg", "less"),
    "normal_within_30": ("< 30 deg", "more"),
    "mean_iou": ("mean IoU", "more"),
}


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        root: a dataset with exact truth.
        baselines: folder with `linear/heads.safetensors` and `pixels/heads.safetensors`.
        heads: the heads to judge.
        cache: folder of the cached features.
        json: print one JSON object a line instead of a table.
    """

    root: Annotated[str, tyro.conf.Positional]
    baselines: Path | None = None
    heads: Path = WEIGHTS_FILE
    cache: Path = Path("build/heads")
    json: bool = False


def compare(options: Options) -> Iterator[tuple[str, Errors]]:
    """Errors by name, the heads first."""
    torch.set_num_threads(1)
    val = cached_examples(options.root, "val", 0.0, options.cache)
    train = cached_examples(options.root, "train", 0.0, options.cache)
    yield "heads", evaluate(load_heads(options.heads), val)
    if options.baselines is not None:
        for name, folder in (("linear probe", "linear"), ("heads on pixels", "pixels")):
            path = options.baselines / folder / "heads.safetensors"
            yield name, evaluate(load_heads(path), val)
    statistics = RowStatistics(truths(_some(train)))
    for name, guess in (
        ("height in the image", statistics.by_height()),
        ("constant", statistics.constant()),
    ):
        yield name, errors(zip(always(guess), truths(val), strict=False))


def _some(examples: list[Examples]) -> list[Examples]:
    """Every fourth shard: a thousand images say enough of what is usual."""
    return examples[::4]


def main() -> None:
    """The command line."""
    options = tyro.cli(Options)
    found = list(compare(options))
    if options.json:
        for line in _json_lines(found):
            print(line)
        return
    print(f"{found[0][1].images} images of {options.root}, split val")
    print(" " * 20, *(f"{title:>11}" for title, _ in _COLUMNS.values()))
    for name, each in found:
        values = (f"{getattr(each, column):>11.3f}" for column in _COLUMNS)
        print(f"{name:<20}", *values)


def _json_lines(found: list[tuple[str, Errors]]) -> Iterator[str]:
    judged = found[0][1]
    for baseline, each in found[1:]:
        for column, (_, better) in _COLUMNS.items():
            value, other = (round(getattr(of, column), 4) for of in (judged, each))
            line = {
                "name": f"heads/{column}",
                "value": value,
                "unit": "degrees" if column.endswith("degrees") else "",
                "baseline": baseline,
                "baseline_value": other,
                "ratio": round(value / other, 4) if other else None,
                "goal": f"{better} than the baseline",
                "ok": value < other if better == "less" else value > other,
                "machine": platform.processor() or platform.machine(),
            }
            yield json.dumps(line)


if __name__ == "__main__":
    main()
