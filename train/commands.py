"""The trainer's verbs of the command line. Nothing imports torch before there is work to do."""

import json as json_module
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from fourmill.manifests.configs import assignments
from fourmill.manifests.errors import ConfigError
from fourmill.train import runs
from fourmill.train.config import TrainConfig, load_train_config
from fourmill.train.metrics import last_losses
from fourmill.train.plan import plan_run
from fourmill.train.progress import progress_bar, say, tell_plan, write_json
from fourmill.train.started import is_first_process, process_count

_SUMMARY = "model.json"  # of a finished run: where it ended


def train(
    config: Positional[Path],
    set: tuple[str, ...] = (),
    fresh: bool = False,
    dry_run: bool = False,
    launcher: Literal["none", "ray"] = "none",
    processes: int = 1,
    address: str | None = None,
    profile: int = 0,
    json: bool = False,
) -> None:
    """Train 4M on a dataset's tokens; go on where a run stopped, do nothing if it is finished.

    Examples: `fourmill train configs/demo.yaml --set steps=200 lr=5e-4`,
    `torchrun --nproc-per-node 8 --no-python fourmill train configs/demo.yaml` on the GPUs of one
    machine, `fourmill train configs/demo.yaml --launcher ray --processes 16 --address auto` on a
    cluster.

    Args:
        config: a run's YAML file; its section `train` is read.
        set: replaced options of the section, `steps=500`, `model.dim=384`.
        fresh: begin anew; the old run's folder is renamed, not removed.
        dry_run: say what would be trained on what.
        launcher: ray starts the processes by Ray Train, and starts them again where one is lost.
        processes: that Ray starts.
        address: of a Ray cluster; by default one of this machine, for the time of the training.
        profile: record so many steps into `profile.json` of the run's folder.
        json: print what was done as JSON.
    """
    settings = load_train_config(config, assignments(set, "train"))
    if (processes != 1 or address) and launcher == "none":
        raise ConfigError("--processes and --address are for --launcher ray; torchrun has its own")
    if not is_first_process():  # the first one speaks, and waits for all where they are connected
        if not dry_run:
            _train(settings, profile)
        return
    if fresh and not dry_run and (old := runs.set_aside(settings.out)):
        say(f"set the run that was there aside, as {old}")
    run = plan_run(settings)
    before = runs.finished_steps(settings.out)
    if dry_run:
        _describe(run, before, json)
        return
    if before >= settings.steps:
        say(f"nothing to do: {settings.out} has its {before} steps")
    if launcher == "ray" and before < settings.steps:
        from fourmill.train.launch import train_with_ray

        train_with_ray(settings, processes, address, profile)
    elif before < settings.steps or process_count() > 1:  # others wait until all are there
        _train(settings, profile)
    report = _report(settings)
    summary = json_module.dumps(report, indent=1).encode()
    if not (settings.out / _SUMMARY).exists():
        runs.replace_file(settings.out / _SUMMARY, summary)
    if json:
        done = report["step"] - before
        write_json(report | {"steps_done": done, "samples_done": done * settings.batch_size})


def predict(
    config: Positional[Path],
    out: Path = Path("predictions"),
    samples: int = 8,
    inputs: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
) -> None:
    """What a trained model predicts from pixels alone for held-out samples, beside their labels.

    Writes `predictions.png`, `curves.png`, and `predictions.json` with the losses.

    Args:
        config: the YAML file that the model was trained with.
        out: folder for the pictures.
        samples: how many held-out samples are shown.
        inputs: modalities that the model is given instead of pixels.
        set: replaced options of the section `train`.
    """
    from fourmill.train.curves import draw_curves
    from fourmill.train.panels import draw_panels
    from fourmill.train.predict import Predictor, pixel_inputs

    settings = load_train_config(config, assignments(set, "train"))
    predictor = Predictor(settings)
    given = list(inputs) or pixel_inputs(predictor.domains) or list(predictor.domains.inputs[:1])
    targets = [name for name in predictor.domains.targets if name not in given]
    predictions = predictor.predict(given, targets, predictor.pick(samples))
    out.mkdir(parents=True, exist_ok=True)
    draw_panels(predictions, given).save(out / "predictions.png")
    draw_curves(settings.out / "metrics.jsonl", out / "curves.png")
    report = _report(settings) | {"inputs": given, "samples": predictions.keys}
    runs.replace_file(out / "predictions.json", json_module.dumps(report, indent=1).encode())
    say(f"wrote {out / 'predictions.png'}, {out / 'curves.png'}, {out / 'predictions.json'}")


def convert(
    source: Positional[str],
    target: Positional[Path],
    to: Literal["reference", "fourmill"] | None = None,
    weights: Literal["model", "average"] = "model",
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Write a model of the reference implementation as one of ours, or one of ours as one of its.

    Examples: `fourmill convert EPFL-VILAB/4M-7_B_CC12M weights/4m-7-b`,
    `fourmill convert demo/work/builtin/run weights/mine.safetensors --to reference`.

    Args:
        source: a run, a checkpoint, a safetensors file, a folder as a hub has it, or a hub's id.
        target: a file if it ends in .safetensors, else a folder.
        to: whose layout; by default the one that the source does not have.
        weights: average for the averages that a run with `ema` keeps.
        force: replace a model that is there.
        dry_run: say what would be written; nothing is fetched from a hub.
        json: print what was done as JSON.
    """
    from fourmill.train import convert as work
    from fourmill.train.published import hub_weights, open_published

    hub = hub_weights(source)
    if dry_run and hub is not None and hub.local_folder() is None:
        tell_plan({"source": source, "fetch": str(hub), "target": str(target)}, json)
        return
    opened = open_published(source, weights)
    layout = to or ("reference" if opened.is_ours else "fourmill")
    act = work.plan_conversion if dry_run else work.convert
    tell_plan(vars(act(opened, target, layout, force)), json)


def _train(settings: TrainConfig, profiled_steps: int) -> None:
    from fourmill.train.loop import train as run_training

    with progress_bar("training 4M", settings.steps) as report:
        run_training(settings, report, profiled_steps)


def _report(settings: TrainConfig) -> dict[str, Any]:
    metrics = settings.out / "metrics.jsonl"
    return {
        "out": str(settings.out),
        "step": runs.finished_steps(settings.out),
        "val_losses": last_losses(metrics, "val"),
        "unigram_losses": last_losses(metrics, "unigram"),
    }


def _describe(run: runs.Run, done: int, json: bool) -> None:
    config = run.config
    plan = {
        "root": config.root, "snapshot": run.snapshot, "out": str(config.out),
        "inputs": list(run.domains.inputs), "targets": list(run.domains.targets),
        "steps": config.steps, "steps_done": done, "samples": config.steps * config.batch_size,
    }  # fmt: skip
    tell_plan(plan, json)
