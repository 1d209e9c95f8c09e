"""The verb `tokenizer train`. Nothing imports torch before there is work to do."""

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from fourmill.manifests.configs import assignments
from fourmill.train import runs
from fourmill.train.metrics import read_metrics
from fourmill.train.progress import progress_bar, say, tell_plan, write_json
from fourmill.train.tokenizers.config import TokenizerTrainConfig, load_config
from fourmill.train.tokenizers.plan import Run, plan_run


def train(
    config: Positional[Path],
    set: tuple[str, ...] = (),
    fresh: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Train a tokenizer on one modality of a dataset; go on where a run stopped.

    Examples: `fourmill tokenizer train configs/tokenizers/rgb.yaml --set root=data/mine`,
    `torchrun --nproc-per-node 8 -m fourmill.pipeline.cli tokenizer train rgb.yaml`.

    Args:
        config: a YAML file: root, out, modality, network, losses, steps; docs/tokenizers.md.
        set: replaced options of the file, `steps=500`, `network.codes=4096`.
        fresh: begin anew; the old run's folder is renamed, not removed.
        dry_run: say what would be trained on what.
        json: print what was done as JSON.
    """
    settings = load_config(config, assignments(set))
    if fresh and not dry_run and (old := runs.set_aside(settings.out)):
        say(f"set the run that was there aside, as {old}")
    run = plan_run(settings)
    before = runs.finished_steps(settings.out)
    if dry_run:
        _describe(run, before, json)
        return
    if run.tokenizer.is_dir():
        say(f"nothing to do: {run.tokenizer} is there")
    else:
        _train(run, settings)
    report = _report(run)
    if json:
        write_json(report | {"steps_done": report["step"] - before})
    else:
        for name, value in report["metrics"].items():
            say(f"{name:>14}  {value:.4g}")


def _train(run: Run, settings: TokenizerTrainConfig) -> None:
    from fourmill.train.tokenizers.loop import train as run_training

    with progress_bar(f"training {run.tokenizer.name}", settings.steps) as report:
        run_training(run, report)


def _report(run: Run) -> dict[str, Any]:
    lines = read_metrics(run.config.out / "metrics.jsonl")
    evaluated = [each["metrics"] for each in lines if each["kind"] == "val"]
    return {
        "tokenizer": str(run.tokenizer),
        "step": runs.finished_steps(run.config.out),
        "metrics": evaluated[-1] if evaluated else {},
    }


def _describe(run: Run, done: int, json: bool) -> None:
    config = run.config
    plan = {
        "root": config.root, "snapshot": run.snapshot, "tokenizer": str(run.tokenizer),
        "modality": config.modality, "network": config.network.kind, "steps": config.steps,
        "steps_done": done, "crops": config.steps * config.batch_size,
    }  # fmt: skip
    tell_plan(plan, json)
