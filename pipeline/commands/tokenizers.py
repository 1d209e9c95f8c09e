"""The verb that looks at tokenizers."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.pipeline.cli import write_json
from fourmill.pipeline.judging import Judging, Verdict, judge, planned
from fourmill.pipeline.progress import Steps, console
from fourmill.tokenize import registry
from fourmill.tokenize.folders import whole_folder

HEADINGS = ("tokenizer", "metric", "value", "k-means", "patch mean", "better than")
"""Of the table that `table_rows` makes."""


def tokenizer(
    what: Positional[str],
    folder: Positional[Path],
    root: str | None = None,
    samples: int = 64,
    training: int = 512,
    stored_only: bool = False,
    panel: Path | None = None,
    json: bool = False,
) -> None:
    """Look at tokenizers: `show` what they are, or `eval` what they lose on held-out samples.

    `eval` measures what comes back from tokens, and beside it two simpler ways to code a patch: the
    nearest of as many patches as there are codes (k-means of the training split), and each patch's
    own mean. They are trained by `fourmill run`, on the dataset's own samples.
    Examples: `fourmill tokenizer show data/tokenizers`,
    `fourmill tokenizer eval data/tokenizers --root data/mine --panel panel.png`,
    `fourmill tokenizer eval data/tokenizers/tok_rgb@112 --root data/mine --samples 256 --json`.

    Args:
        what: show or eval.
        folder: of tokenizers, or one tokenizer.
        root: the dataset to judge them on; samples of its split `val` if there is one.
        samples: how many samples to judge them on, centre crops.
        training: most training samples for k-means; never more than the tokenizer had.
        stored_only: leave out what is not stored (features) rather than make it again.
        panel: write a picture here: originals, what tokens keep, and both simpler ways.
        json: print JSON.
    """
    places = folders(folder)
    if not places:
        raise ConfigError(f"{folder}: no tokenizer in it")
    if what == "show":
        _show([_facts(each) for each in places], json)
    elif what == "eval":
        if root is None:
            raise ConfigError("fourmill tokenizer eval: give a dataset with --root ROOT")
        if samples < 1 or training < 0:
            raise ConfigError(
                f"fourmill tokenizer eval: found --samples {samples} --training {training}, "
                "expected at least 1 and 0"
            )
        judging = Judging(samples, training, stored_only)
        verdicts = judge_with_progress(Dataset.open(root), places, judging)
        if json:
            write_json(as_json(places, verdicts))
        else:
            _print(verdicts)
        if panel is not None:
            _draw(verdicts, panel)
    else:
        raise ConfigError(f"fourmill tokenizer {what}: expected show or eval")


def folders(place: Path) -> list[Path]:
    """Tokenizers in a folder, or the folder alone if it is one."""
    if (place / "spec.json").is_file():
        return [place]
    return sorted(path.parent for path in place.glob("*/spec.json"))


def judge_with_progress(
    dataset: Dataset, places: Sequence[Path], judging: Judging
) -> list[Verdict]:
    """Verdicts on tokenizers, with a line for each on stderr."""
    with Steps(planned(dataset, places, judging), "Judging tokenizers") as bars:
        return judge(dataset, places, judging, bars.advance)


def as_json(places: Sequence[Path], verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """For programs: what each tokenizer is, and what it loses."""
    return [_facts(p) | each.as_dict() for p, each in zip(places, verdicts, strict=True)]


def table_rows(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """A row a metric, under `HEADINGS`."""
    rows = []
    for verdict in verdicts:
        if verdict.comparison is None:
            continue
        for each in verdict.comparison.metrics:
            numbers = (each.tokenizer, each.k_means, each.patch_mean)
            shown = ("–" if number is None else f"{number:.4g}" for number in numbers)
            rows.append((verdict.spec.modality, each.metric, *shown, _better(each.beats)))
    return rows


def _better(beats: dict[str, bool]) -> str:
    won = [name for name, is_better in beats.items() if is_better]
    if len(won) == 2:
        return "both"
    return won[0] if won else "neither" if beats else ""


def notes(verdicts: Sequence[Verdict]) -> list[str]:
    """What has to be known beside the table: how many samples, and what was left out and why."""
    counts: dict[str, list[str]] = {}
    skipped: dict[str, list[str]] = {}
    for each in verdicts:
        name = each.spec.modality
        if each.comparison is None:
            skipped.setdefault(f"skipped, {each.skipped}", []).append(name)
            continue
        split = (
            f"held-out samples (split {each.split})" if each.split
            else "samples of a dataset without a split val, perhaps trained on"
        )  # fmt: skip
        text = f"{each.samples} {split}, k-means of {each.training} training samples"
        counts.setdefault(text, []).append(name)
    lines = _named(counts)
    measured = (
        row.metric for each in verdicts if each.comparison for row in each.comparison.metrics
    )
    if any(each.startswith("rfid") for each in measured):
        lines.append(
            "lpips, rfid: on features of EfficientNet-Lite0, not the published metrics; rfid grows "
            "as samples get fewer"
        )
    return lines + _named(skipped)


def _named(texts: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{', '.join(names)}: {text}" for text, names in texts.items()]


def _show(rows: Sequence[dict[str, object]], json: bool) -> None:
    if json:
        write_json(rows)
        return
    for row in rows:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in row.items():
            table.add_row(key, str(value))
        Console(file=sys.stdout, highlight=False).print(table, "")


def _print(verdicts: Sequence[Verdict]) -> None:
    table = Table(box=None, pad_edge=False)
    # a tokenizer on a line of its own: with a column for it, 80 characters would not be enough
    for heading in HEADINGS[1:]:
        is_number = heading in ("value", "k-means", "patch mean")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    last = ""
    for name, metric, *rest in table_rows(verdicts):
        if name != last:
            table.add_row(name)
        table.add_row(f"  {metric}", *rest)
        last = name
    out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if table.row_count:
        out.print(table)
    for each in notes(verdicts):
        out.print(each)


def _draw(verdicts: Sequence[Verdict], file: Path) -> None:
    from fourmill.pipeline.panels import tokenizer_panel

    picture = tokenizer_panel(verdicts)
    if picture is None:
        raise ConfigError(f"{file}: nothing to draw, no tokenizer here could be decoded")
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    console.print(f"panel: {file}", highlight=False)


def _facts(folder: Path) -> dict[str, object]:
    spec = registry.spec(folder)
    return {
        "tokenizer": spec.modality, "encodes": spec.reads, "kind": spec.kind,
        "ids": spec.vocab_size, "tokens": spec.max_tokens,
        "sha256": registry.weights_sha256(folder)[:16],
    }  # fmt: skip


def resize(
    tokenizers: Positional[tuple[Path, ...]],
    size: int,
    json: bool = False,
) -> None:
    """The same tokenizers for crops of another size, each in a folder beside it.

    The weights are the same, positions are interpolated; `tokenizer eval` says how good they are.
    A tokenizer of the other size that is there is left as it is. Example:
    `fourmill tokenizer resize data/tokenizers/tok_rgb@112 --size 224`.

    Args:
        tokenizers: their folders, of grids of tokens.
        size: pixels of the side of a crop.
        json: print the folders as JSON.
    """
    folders = []
    for each in tokenizers:
        resized = registry.load(each, size)
        folders.append(each.absolute().with_name(resized.spec.modality))
        if not folders[-1].exists():
            with whole_folder(folders[-1]) as aside:
                resized.save(aside)
    if json:
        write_json([str(each) for each in folders])
        return
    for each in folders:
        console.print(str(each))
