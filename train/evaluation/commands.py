"""The verb `evaluate`. Nothing imports torch before there is work to do."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from fourmill.manifests.errors import ConfigError
from fourmill.train import runs
from fourmill.train.evaluation.settings import Alignment, Settings
from fourmill.train.progress import say, tell_plan, write_json


def evaluate(
    model: Positional[str],
    root: Positional[str],
    tasks: tuple[str, ...] = (),
    inputs: tuple[str, ...] = (),
    truth: tuple[str, ...] = (),
    out: Path = Path("evaluation"),
    split: str = "val",
    limit: int | None = None,
    ensemble: int = 1,
    seed: int = 0,
    steps: int | None = None,
    temperature: float | None = None,
    alignments: tuple[Alignment, ...] = ("scale_and_shift",),
    ignore: tuple[str, ...] = (),
    training: int = 1000,
    bound: bool = True,
    classes: str | None = None,
    bank: int | None = None,
    losses: bool = True,
    tokenizers: Path | None = None,
    weights: Literal["model", "average"] = "model",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 8,
    fresh: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """How well a trained 4M predicts what a dataset knows, out of the box, in the usual metrics.

    Predicts every task from pixels alone (or --inputs), decodes it, and compares it with the
    dataset's own labels on the centre crop; beside it stand the mean of the training split, which
    is what can be had without a look, and the truth through the tokenizer, which is the most that
    can be had. Writes `report.md`, `report.json`, scores of all samples and pictures. Interrupted,
    it goes on with the task that it was at.

    Examples: `fourmill evaluate demo/work/builtin/run demo/work/builtin/dataset`,
    `fourmill evaluate EPFL-VILAB/4M-21_B data/diode --tokenizers weights/tokenizers --tasks depth
    normal --ensemble 10`.

    Args:
        model: a run, its YAML file, a checkpoint, a safetensors file, or a hub's id.
        root: of the dataset, with any labels: ground truth or pseudo-labels.
        tasks: modalities to predict; by default all that the model can and the dataset has.
        inputs: modalities that the model is given instead of pixels.
        truth: what a task is compared with, as caption=truth_captions; by default the modality of
            its name, else truth_… of it.
        out: folder of the report.
        split: whose samples are predicted.
        limit: of samples, evenly spread over the split.
        ensemble: samples of each prediction that become one: means of depth, normals and features,
            votes of classes, the text most like the others. Of boxes and structures one is judged.
        seed: of the draws.
        steps: in which grids are filled.
        temperature: of the draws; by default 1 where an ensemble is drawn, else 0, which takes the
            likeliest tokens.
        alignments: of depth, before it is compared.
        ignore: classes of the truth that do not count.
        training: samples of `train` that the baseline learns from; 0 for none.
        bound: tokenize and decode the truths, to see what the tokens lose.
        classes: modality that says the class of each sample, and after points a place in it, like
            `probe --label`; predicted vectors then classify it by their nearest neighbours (k 20,
            temperature 0.07) among those of `train`.
        bank: samples of `train` that are such neighbours; by default all.
        losses: cross-entropy on frozen masks, if the dataset has the model's tokens.
        tokenizers: folder with a tokenizer a folder; by default those of the run.
        weights: average for the averages that a run with `ema` keeps.
        device: auto, cpu, cuda, cuda:1.
        dtype: auto, float32, bfloat16.
        batch_size: samples predicted at once.
        fresh: begin anew; what is in --out is renamed, not removed.
        dry_run: say what would be evaluated.
        json: print the report as JSON.
    """
    settings = Settings(
        split, limit, ensemble, seed, steps, temperature, alignments, ignore, training, bound,
        classes, bank, batch_size,
    )  # fmt: skip
    truths = _pairs(truth)

    from fourmill.train.evaluation.work import Evaluation, Wanted, tell

    wanted = Wanted(
        model, root, tasks, inputs, truths, tokenizers, weights, device, dtype, losses
    )  # fmt: skip
    evaluation = Evaluation(wanted, settings)
    if dry_run:
        tell_plan(evaluation.plan(), json)
        return
    if fresh and (old := runs.set_aside(out)):
        say(f"set aside what was there, as {old}")
    folder = evaluation.folder(out)
    report = folder.finished()
    if report is not None:
        say(f"nothing to do: {out} holds this very evaluation")
    else:
        report = evaluation.run(folder)
    if json:
        write_json(report)
    else:
        tell(report, out)


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    """What --truth was given, by task."""
    found: dict[str, str] = {}
    for each in words:
        task, equals, name = each.partition("=")
        if not (task and equals and name):
            raise ConfigError(f"--truth {each}: expected TASK=MODALITY, as depth=truth_depth")
        if task in found:
            raise ConfigError(f"--truth {each}: {task} has {found[task]} already")
        found[task] = name
    return found
