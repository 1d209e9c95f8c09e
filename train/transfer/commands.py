"""The verbs `features`, `probe` and `finetune`; torch is imported when a model is looked at."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from fourmill.manifests.configs import assignments, read_yaml
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.train import runs
from fourmill.train.progress import progress_bar, say, tell_plan, write_json
from fourmill.train.started import is_first_process
from fourmill.train.transfer.config import FinetuneConfig, load_config
from fourmill.train.transfer.plan import Run, plan_run

if TYPE_CHECKING:
    from fourmill.train.transfer.features import Features
    from fourmill.train.transfer.probe import Accuracy, Probed


def features(
    model: Positional[str],
    root: Positional[str],
    out: Path = Path("features"),
    splits: tuple[str, ...] = ("train", "val"),
    pooling: Literal["mean", "registers"] = "mean",
    size: int | None = None,
    others: tuple[str, ...] = (),
    weights: Literal["model", "average"] = "model",
    batch_size: int = 64,
    readers: int = 0,
    device: str = "auto",
    json: bool = False,
) -> None:
    """One vector for each picture of a dataset, from a trained model's encoder.

    Writes `train.npy` and `train-keys.npy` for each split, and `features.json`.

    Examples: `fourmill features runs/mine data/mine --out features/mine`,
    `fourmill features EPFL-VILAB/4M-21_B data/mine --others tok_depth@224`.

    Args:
        model: a run, a checkpoint, a safetensors file, or a hub's id.
        root: dataset root, any fsspec URL.
        out: folder for the arrays.
        splits: of the dataset.
        pooling: mean of the patches, or of the registers.
        size: side of the centre crops in pixels; by default the model's.
        others: token modalities that the encoder reads beside pixels.
        weights: average for the averages that a run with `ema` keeps.
        batch_size: pictures that are computed at once.
        readers: processes that read pictures; 0 for none beside this one.
        device: cpu, cuda, cuda:1; auto takes a GPU if there is one.
        json: print what was done as JSON.
    """
    from fourmill.train.transfer.features import Extraction, write_features

    made, about = _extract(
        model, root, splits, pooling, size, others, weights, batch_size, readers, device
    )
    write_features(made, Extraction(**about), out)
    report = {
        "out": str(out),
        "samples": {split: len(each.keys) for split, each in made.items()},
        "dim": next(iter(made.values())).values.shape[1],
    }
    if json:
        write_json(report)
    else:
        say(f"wrote {', '.join(f'{n} of {split}' for split, n in report['samples'].items())} "
            f"to {out}, {report['dim']} numbers each")  # fmt: skip


def probe(
    model: Positional[str],
    root: Positional[str],
    label: str,
    classes: Path | None = None,
    features: Path | None = None,
    untrained: bool = False,
    pooling: Literal["mean", "registers"] = "mean",
    size: int | None = None,
    others: tuple[str, ...] = (),
    weights: Literal["model", "average"] = "model",
    batch_size: int = 64,
    readers: int = 0,
    device: str = "auto",
    out: Path | None = None,
    json: bool = False,
) -> None:
    """How well a trained encoder's frozen features tell classes: a linear probe, and neighbours.

    Both learn on `train` and are judged on `val`, beside chance and the commonest class.

    Examples: `fourmill probe runs/mine data/mine --label source.file --classes mine.yaml`,
    `fourmill probe runs/mine data/mine --label imagenet.0.class_name --json`.

    Args:
        model: a run, a checkpoint, a safetensors file, or a hub's id.
        root: dataset root, any fsspec URL.
        label: modality that says the class, and after points a place in it.
        classes: YAML file whose `classes` are patterns of labels by class; by default every label
            is a class.
        features: folder that `fourmill features` wrote of this model, instead of computing them;
            then its pooling, size and others are taken.
        untrained: probe the same encoder with fresh weights too: what training has added.
        pooling: mean of the patches, or of the registers.
        size: side of the centre crops in pixels; by default the model's.
        others: token modalities that the encoder reads beside pixels.
        weights: average for the averages that a run with `ema` keeps.
        batch_size: pictures that are computed at once.
        readers: processes that read pictures; 0 for none beside this one.
        device: cpu, cuda, cuda:1; auto takes a GPU if there is one.
        out: JSON file for what was found.
        json: print it as JSON.
    """
    from json import dumps

    from fourmill.train.transfer.classes import classify

    patterns = None
    if classes is not None:
        patterns = read_yaml(classes).get("classes")
        if not isinstance(patterns, dict) or not patterns:
            raise ConfigError(f"{classes}: has no `classes`, patterns by name")
    dataset = Dataset.open(root)
    classified = classify(dataset, dataset.head, label, patterns)
    if features is not None:
        from fourmill.train.transfer.features import read_extraction, read_features

        about = read_extraction(features)
        if about.model != model:
            raise ConfigError(f"{features}: has features of {about.model}, not of {model}")
        # an untrained encoder is to stand beside them, so it is asked the same
        pooling, size, others = about.pooling, about.size, about.others
        made = {split: read_features(features, split) for split in ("train", "val")}
    else:
        made, _ = _extract(
            model, root, ("train", "val"), pooling, size, others, weights, batch_size, readers,
            device,
        )  # fmt: skip
    from fourmill.train.transfer.probe import probe as run_probe

    found = run_probe(made, classified)
    if untrained:
        fresh, _ = _extract(
            model, root, ("train", "val"), pooling, size, others, weights, batch_size, readers,
            device, untrained=True,
        )  # fmt: skip
        found = replace(found, untrained=run_probe(fresh, classified).linear)
    report = {"model": model, "root": root, "label": label, **found.as_json()}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        runs.replace_file(out, dumps(report, indent=1).encode())
    if json:
        write_json(report)
    else:
        _tell_probe(found)


def finetune(
    config: Positional[Path],
    set: tuple[str, ...] = (),
    fresh: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Fine-tune a trained model's encoder on classes, segments, depth or normals of a dataset.

    It goes on where it stopped, and does nothing if it is finished.

    Examples: `fourmill finetune configs/transfer/demo-classes.yaml`,
    `torchrun --nproc-per-node 8 --no-python fourmill finetune configs/transfer/imagenet-b.yaml`.

    Args:
        config: a YAML file: model, root, out, task, label, steps; docs/transfer.md.
        set: replaced options of the file, `steps=500`, `lora.rank=4`.
        fresh: begin anew; the old run's folder is renamed, not removed.
        dry_run: say what would be trained on what.
        json: print the result as JSON.
    """
    settings = load_config(config, assignments(set))
    if not is_first_process():  # the first one speaks, and waits for all where they are connected
        if not dry_run:
            _finetune(settings)
        return
    if fresh and not dry_run and (old := runs.set_aside(settings.out)):
        say(f"set the run that was there aside, as {old}")
    run = plan_run(settings)
    if dry_run:
        tell_plan(_plan_of(run), json)
        return
    if run.is_finished:
        say(f"nothing to do: {settings.out} is finished")
    result = _finetune(settings)
    if json:
        write_json(result)
        return
    for name, value in result["metrics"].items():
        say(f"{name:>16}  {value:.4g}")
    if "chance" in result:
        say(
            f"by chance {result['chance']:.1%} would be right, and {result['majority']:.1%} by the "
            f"commonest class; margins {result['margin_over_chance']:+.1%} and "
            f"{result['margin_over_majority']:+.1%}"
        )


def _finetune(settings: FinetuneConfig) -> dict[str, Any]:
    from fourmill.train.transfer.finetune import finetune as run_training

    with progress_bar(f"fine-tuning for {settings.task}", settings.steps) as report:
        return run_training(plan_run(settings), report)


def _plan_of(run: Run) -> dict[str, Any]:
    config = run.config
    return {
        "root": config.root, "snapshot": run.snapshot, "out": str(config.out),
        "model": config.model, "task": config.task, "label": config.label,
        "steps": config.steps, "steps_done": runs.finished_steps(config.out),
        "samples": config.steps * config.batch_size,
    }  # fmt: skip


def _extract(
    model: str, root: str, splits: tuple[str, ...], pooling: Literal["mean", "registers"],
    size: int | None, others: tuple[str, ...], weights: Literal["model", "average"],
    batch_size: int, readers: int, device: str, untrained: bool = False,
) -> "tuple[dict[str, Features], dict[str, Any]]":  # fmt: skip
    from fourmill.train.transfer.backbone import Backbone
    from fourmill.train.transfer.features import extract

    dataset = Dataset.open(root)
    backbone = Backbone.load(model, others, size, weights, untrained)
    made = {}
    for split in splits:
        count = sum(
            dataset.shard("rgb", index).record.samples for index in dataset.shard_indices(split)
        )
        with progress_bar(f"features of {split}", count) as report:
            made[split] = extract(
                backbone, dataset, split, pooling, size, device, batch_size=batch_size,
                readers=readers, on_progress=report,
            )  # fmt: skip
    about = {
        "model": model, "snapshot": dataset.head.id, "size": size or backbone.input_size,
        "pooling": pooling, "others": others, "weights": weights,
    }  # fmt: skip
    return made, about


def _tell_probe(found: "Probed") -> None:
    def line(name: str, each: "Accuracy") -> str:
        return (
            f"{name:>18}  {each.top1:6.1%}  ({each.low:.1%} to {each.high:.1%})  "
            f"top 5 {each.top5:6.1%}  mean of classes {each.balanced:6.1%}"
        )

    say(f"{len(found.classes)} classes, {found.train_samples} samples of train, "
        f"{found.val_samples} of val")  # fmt: skip
    say(line("linear probe", found.linear))
    say(line("nearest neighbours", found.neighbours))
    if found.untrained is not None:
        say(line("untrained, linear", found.untrained))
    say(f"{'commonest class':>18}  {found.majority:6.1%}")
    say(f"{'chance':>18}  {found.chance:6.1%}")
