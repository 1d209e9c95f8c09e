"""The verb that goes the whole way: pipeline, training, pictures, one page."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, FourmillError
from fourmill.pipeline.commands.build import overrides
from fourmill.pipeline.commands.tokenizers import (
    HEADINGS,
    as_json,
    folders,
    judge_with_progress,
    notes,
    table_rows,
)
from fourmill.pipeline.config import RunConfig, load_config
from fourmill.pipeline.judging import Judging, Verdict
from fourmill.pipeline.page import Picture, Table, page
from fourmill.pipeline.progress import console
from fourmill.pipeline.run import Run

_SHEET_COLUMNS = (
    "rgb", "depth", "normal", "semseg_coarse", "canny_edge", "saliency", "det",
    "tok_vit_s_focus@112", "color_palette", "imagenet", "caption",
)  # fmt: skip
_SHEET_SAMPLES = 12
_RECONSTRUCTED = 5
_PREDICTED = 8
_EVALUATED = ("depth", "normal", "semseg_coarse", "caption")
_ENSEMBLE = 10  # samples of which one is made, that is judged
_LEARNED = 200  # samples that the mean beside them is of
_JUDGING = Judging(samples=48, stored_only=True)  # making features again would take a minute
_DRAWN = ("pictures", "judge tokenizers")  # stages that are done anew, not gone on with
_PICTURES = ("samples.png", "reconstructions.png", "predictions.png", "curves.png")


def demo(
    data: Path | None = None,
    out: Path = Path("demo"),
    config: Path = Path("configs/demo.yaml"),
    set: tuple[str, ...] = (),
) -> None:
    """Label photographs, tokenize them, train a small 4M on them, and show what came out.

    Does only what is missing; may be killed at any time and started again.
    Examples: `fourmill demo`, `fourmill demo --data ~/Pictures`.

    Args:
        data: a folder of photographs, with captions as `fourmill ingest` reads them; the built-in
            photographs by default.
        out: where the pictures and `index.html` go; the work is kept in its folder `work`.
        config: the configuration that is run.
        set: replaced settings, `section.key=value`.
    """
    work = out / "work" / _work_name(data)
    work.mkdir(parents=True, exist_ok=True)
    resolved = work / "config.yaml"
    replaced: dict[str, Any] = {
        "root": str(work / "dataset"),
        "tokenizers": str(work / "tokenizers"),
        "train.out": str(work / "run"),
    }
    if data is not None:
        replaced["corpus.sources"] = [str(data.expanduser())]
    loaded = load_config(config, replaced | overrides(set))
    _write(resolved, yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False))
    job = Run(loaded)
    try:
        job.all()
    finally:
        _note_timings(work, job.timings.as_json())
    _train(resolved, work)
    if _draw(loaded, resolved, out, work):
        console.print(f"look at {out / 'index.html'}", highlight=False)
    else:
        console.print(f"nothing to do: {out / 'index.html'} is up to date", highlight=False)


def _work_name(data: Path | None) -> str:
    if data is None:
        return "builtin"
    if not data.expanduser().is_dir():
        raise ConfigError(f"{data}: no such folder")
    place = str(data.expanduser().resolve())
    slug = re.sub(r"[^0-9A-Za-z]+", "-", Path(place).name).strip("-") or "folder"
    return f"{slug}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"


def _train(resolved: Path, work: Path) -> None:
    """Train in a process of its own, so that the pipeline's memory is free."""
    started = time.perf_counter()
    report = _call("train", str(resolved), "--json")
    if report.get("steps_done"):
        row = {"stage": "train 4M", "items": report["samples_done"]}
        seconds = round(time.perf_counter() - started, 2)
        _note_timings(work, [row | {"what": "", "failed": 0, "seconds": seconds}])


def _call(verb: str, *words: str) -> dict[str, Any]:
    """Run another verb and return what it prints as JSON."""
    command = [sys.executable, "-m", "fourmill.pipeline.cli", verb, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        raise FourmillError(f"fourmill {verb} failed, see above; what was done is kept")
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(found[-1]) if found else {}
    return result


def _draw(config: RunConfig, resolved: Path, out: Path, work: Path) -> bool:
    """The pictures and the page, unless they show this very state already."""
    dataset = Dataset.open(config.root)
    model = work / "run" / "model.json"
    state = {"work": str(work), "snapshot": dataset.head.id}
    state["model"] = hashlib.sha256(model.read_bytes()).hexdigest() if model.exists() else ""
    stamp = out / "state.json"
    wanted = [stamp, *(out / each for each in (*_PICTURES, "tokenizers.json", "index.html"))]
    if all(each.exists() for each in wanted) and json.loads(stamp.read_text()) == state:
        return False
    started = time.perf_counter()
    _draw_sheets(config, dataset, out)
    _call("predict", str(resolved), "--out", str(out), "--samples", str(_PREDICTED))
    judged = _evaluate(dataset, resolved, out / "evaluation")
    drawn = time.perf_counter()
    verdicts = _judge(config, dataset, out)
    times = {"pictures": drawn - started, "judge tokenizers": time.perf_counter() - drawn}
    row = {"what": "", "items": 0, "failed": 0}
    _note_timings(
        work, [row | {"stage": each, "seconds": round(s, 2)} for each, s in times.items()]
    )
    _write(out / "index.html", _page(dataset, out, work, verdicts, judged))
    _write(stamp, json.dumps(state))
    return True


def _draw_sheets(config: RunConfig, dataset: Dataset, out: Path) -> None:
    from fourmill.pipeline.sheets import aligned_sheet, pick_rows, reconstruction_sheet

    columns = [each for each in _SHEET_COLUMNS if each in dataset.modalities]
    places = pick_rows(dataset, _SHEET_SAMPLES)
    aligned_sheet(dataset, places, columns, config.tokenizers).save(out / "samples.png")
    split = "val" if "val" in dataset.head.splits else None
    places = pick_rows(dataset, _RECONSTRUCTED, split)
    picture = reconstruction_sheet(dataset, places, config.tokenizers)
    picture.save(out / "reconstructions.png")


def _judge(config: RunConfig, dataset: Dataset, out: Path) -> list[Verdict]:
    from fourmill.pipeline.panels import tokenizer_panel

    places = folders(Path(config.tokenizers))
    verdicts = judge_with_progress(dataset, places, _JUDGING)
    picture = tokenizer_panel(verdicts)
    (out / "tokenizers.png").unlink(missing_ok=True)
    if picture is not None:
        picture.save(out / "tokenizers.png")
    _write(out / "tokenizers.json", json.dumps(as_json(places, verdicts), indent=1))
    return verdicts


def _evaluate(dataset: Dataset, resolved: Path, folder: Path) -> list[Table]:
    """How well the model predicts held-out samples from RGB; nothing of what there is not."""
    if "val" not in dataset.head.splits:
        return []
    tasks = [name for name in _EVALUATED if _can_be_judged(dataset, name)]
    if not tasks:
        return []
    report = _call(
        "evaluate", str(resolved), dataset.url, "--tasks", *tasks, "--training", str(_LEARNED),
        "--ensemble", str(_ENSEMBLE), "--batch-size", "32", "--no-losses", "--out", str(folder),
        "--fresh", "--json",
    )  # fmt: skip
    judged = report["tasks"]
    columns = list(dict.fromkeys(column for each in judged for column in each["scores"]))
    rows = []
    for task in judged:
        for metric in next(iter(task["scores"].values())):
            values = [task["scores"].get(column, {}).get(metric) for column in columns]
            known = ["" if each is None else f"{each:.3f}" for each in values]
            rows.append((task["task"], metric, task["samples"], *known))
    text = (
        f"Held-out photographs that 4M sees only as RGB. Of {_ENSEMBLE} drawn samples the mean, or "
        "the caption most like the others, and one of them alone. Beside them what can be said "
        "without a look, the mean of the training split, and what is left of the labels themselves "
        "after their tokens."
    )
    headings = ("modality", "measure", "samples", *columns)
    return [Table("How good predictions from RGB alone are", text, headings, rows)]


def _can_be_judged(dataset: Dataset, name: str) -> bool:
    """Whether a held-out sample has it and a picture; one's own photographs may lack captions."""
    if name not in dataset.modalities:
        return False
    shards = dataset.shard_indices("val")
    return any(
        (dataset.shard(name, each).record.valid & dataset.shard("rgb", each).record.valid).any()
        for each in shards
    )


def _judged(verdicts: Sequence[Verdict], picture: Path) -> list[Picture | Table]:
    """Nothing where no tokenizer could be judged."""
    rows = table_rows(verdicts)
    if not rows:
        return []
    parts: list[Picture | Table] = [
        Table(
            "What tokens keep",
            "Each tokenizer beside k-means of patches with as many codes, and beside each patch's "
            f"own mean, which no code book limits. {'; '.join(notes(verdicts))}.",
            HEADINGS,
            rows,
        )
    ]
    if picture.exists():  # not of tokenizers that cannot be decoded
        text = "Held-out crops, what comes back from their tokens, and both simpler ways."
        parts.append(Picture("What that looks like", text, picture))
    return parts


def _page(
    dataset: Dataset,
    out: Path,
    work: Path,
    verdicts: Sequence[Verdict],
    predicted: Sequence[Table],
) -> str:
    status = dataset.status()
    samples = max((each.samples for each in status.modalities), default=0)
    rows = json.loads((work / "timings.json").read_text())
    timings = [
        (each["stage"], each["what"], each["items"], each["failed"], float(each["seconds"]))
        for each in rows
    ]
    modalities = [
        (each.modality, each.producer, each.samples, each.failed, each.bytes / 2**20)
        for each in status.modalities
    ]
    return page(
        "fourmill: what was made",
        f"{samples} photographs, {len(status.modalities)} modalities, snapshot "
        f"{dataset.head.id[:12]} of {dataset.url}.",
        [
            Picture(
                "Aligned modalities",
                "Each row is one photograph, each column what one expert says of it. Features are "
                "shown as their first principal components, decoded from tokens.",
                out / "samples.png",
            ),
            Picture(
                "Reconstructions",
                "Held-out photographs: the centre crop of each modality, and below it what comes "
                "back from its tokens.",
                out / "reconstructions.png",
            ),
            *_judged(verdicts, out / "tokenizers.png"),
            Picture(
                "Predictions from RGB alone",
                "Held-out photographs that 4M sees only as RGB: what it predicts, beside the "
                "labels.",
                out / "predictions.png",
            ),
            *predicted,
            Picture(
                "Loss by modality", "Cross-entropy a token, training and held-out.",
                out / "curves.png",
            ),
            Table(
                "What took how long",
                "Seconds by the clock for a stage; for a step in it, of all workers together.",
                ("stage", "step", "items", "failed", "seconds"),
                timings,
            ),
            Table(
                "What there is", "", ("modality", "made by", "samples", "failed", "MiB"),
                modalities,
            ),
        ],
    )  # fmt: skip


def _note_timings(work: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add what was done to the table; work that was interrupted and went on adds up."""
    file = work / "timings.json"
    known: list[dict[str, Any]] = []
    if file.exists():
        known = json.loads(file.read_text())
    else:
        setup = Path(sys.prefix) / "setup-seconds"
        if setup.exists():
            seconds = float(setup.read_text())
            known = [{"stage": "set up", "what": "", "items": 0, "failed": 0, "seconds": seconds}]
    for row in rows:
        same = [each for each in known if all(each[k] == row[k] for k in ("stage", "what"))]
        if same and row["stage"] not in _DRAWN:
            for key in ("items", "failed", "seconds"):
                same[0][key] = round(same[0][key] + row[key], 2)
        elif same:
            same[0].update(row)
        else:
            known.append(dict(row))
    _write(file, json.dumps(known, indent=1))


def _write(file: Path, text: str) -> None:
    aside = file.with_name(f".{file.name}.aside")
    aside.write_text(text)
    aside.replace(file)
