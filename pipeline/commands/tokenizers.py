"""The verb that looks at tokenizers."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import decode_label, image_size
from fourmill.pipeline.cli import write_json
from fourmill.tokenize import registry


def tokenizer(
    what: Positional[str],
    folder: Positional[Path],
    root: str | None = None,
    samples: int = 64,
    json: bool = False,
) -> None:
    """Look at tokenizers: `show FOLDER`, or `eval FOLDER --root ROOT` for what they lose.

    They are trained by `fourmill run`, on the dataset's own samples.

    Args:
        what: show or eval.
        folder: of tokenizers, or one tokenizer.
        root: the dataset to judge them on; samples of its split `val` if there is one.
        samples: how many samples to judge them on.
        json: print JSON.
    """
    places = [folder] if (folder / "spec.json").is_file() else sorted(
        each.parent for each in folder.glob("*/spec.json")
    )  # fmt: skip
    if not places:
        raise ConfigError(f"{folder}: no tokenizer in it")
    if what == "show":
        rows = [_facts(each) for each in places]
    elif what == "eval":
        if root is None:
            raise ConfigError("fourmill tokenizer eval: give a dataset with --root ROOT")
        rows = evaluate_all(Dataset.open(root), places, samples)
    else:
        raise ConfigError(f"fourmill tokenizer {what}: expected show or eval")
    if json:
        write_json(rows)
        return
    for row in rows:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in row.items():
            table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
        Console(file=sys.stdout, highlight=False).print(table, "")


def _facts(folder: Path) -> dict[str, object]:
    spec = registry.spec(folder)
    return {
        "tokenizer": spec.modality, "encodes": spec.reads, "kind": spec.kind,
        "ids": spec.vocab_size, "tokens": spec.max_tokens,
        "sha256": registry.weights_sha256(folder)[:16],
    }  # fmt: skip


def evaluate_all(dataset: Dataset, places: list[Path], samples: int) -> list[dict[str, object]]:
    """What each tokenizer loses on the first samples of the held-out split, with its facts."""
    from fourmill.tokenize.evaluate import evaluate
    from fourmill.tokenize.vq import VQTokenizer

    split = "val" if "val" in dataset.head.splits else None
    rows = []
    for place in places:
        tokenizer = registry.load(place)
        reads = tokenizer.spec.reads
        if reads not in dataset.modalities or not isinstance(tokenizer, VQTokenizer):
            continue
        labels, crops, sizes, keys = [], [], [], []
        names = list(dict.fromkeys(("rgb", "crop_settings", reads)))
        for sample in dataset.samples(names, split, decode=False):
            if sample[reads] is None:
                continue
            values = {n: _decode(dataset, n, sample[n]) for n in ("crop_settings", reads)}
            labels.append(values[reads])
            crops.append(values["crop_settings"][:1])
            sizes.append(image_size(sample["rgb"]))
            keys.append(sample["key"])
            if len(keys) == samples:
                break
        rows.append(_facts(place) | evaluate(tokenizer, labels, crops, sizes, keys))
    return rows


def _decode(dataset: Dataset, name: str, data: bytes) -> Any:
    entry = dataset.modalities[name]
    return decode_label(entry.definition, data, entry.encoding)
