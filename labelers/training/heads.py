"""Train the heads: `python -m fourmill.labelers.training.heads DATASET_ROOT … --out FOLDER`.

A dataset has `rgb` and some of `truth_depth`, `truth_normal` and `truth_semseg_coarse`; the
built-in corpora `rooms` and `composites` do. Run it again to go on after an interruption: the
features are cached, and the same arguments give the same weights.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from fourmill.labelers.heads import Heads, HeadsConfig, load_heads, save_heads
from fourmill.labelers.training import losses
from fourmill.labelers.training.evaluation import evaluate
from fourmill.labelers.training.examples import Examples, OnProgress, cached_examples
from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.manifests.modalities import COARSE_CLASSES

_CHECKPOINT_STEPS = 250


@dataclass(frozen=True)
class TrainHeads:
    """How heads are trained.

    Attributes:
        roots: datasets, of which `train` is learned from and `val` reported.
        out: folder of `heads.safetensors`, the checkpoint and, by default, the cache.
        cache: folder of the cached features; 0.8 MB an image and view.
        varied: share of the shards that are learned from again, as other crops in other colours.
        steps: of `batch_size` views.
        features: what the heads see: the ViT's features, or pixels, as a baseline.
        linear: train a linear probe instead, as a baseline.
        threads: of the CPU.
    """

    roots: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: Path
    cache: Path | None = None
    varied: float = 1.0
    steps: int = 5000
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    features: Literal["features", "pixels"] = "features"
    linear: bool = False
    seed: int = 0
    threads: int = 1


@dataclass
class _State:
    heads: Heads
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)


def train(config: TrainHeads) -> Path:
    """Train, evaluate and save heads; returns the file of the weights.

    Raises:
        ConfigError: the datasets have no samples to train on.
        TrainingError: the loss is not finite.
    """
    torch.set_num_threads(config.threads)
    cache = config.cache or config.out / "cache"
    with _progress() as progress:
        examples = _gather(config.roots, "train", config.varied, cache, progress)
        held_out = _gather(config.roots, "val", 0.0, cache, progress)
        state = _begin(config)
        weights = losses.class_weights(_count_classes(examples))
        task = progress.add_task("train", total=config.steps, completed=state.step)
        for batch in _batches(examples, config, state.step):
            state.losses = _step(state, batch, weights, config)
            if state.step % _CHECKPOINT_STEPS == 0 or state.step == config.steps:
                _save_checkpoint(state, config)
            text = " ".join(f"{name} {value:.3f}" for name, value in state.losses.items())
            progress.update(task, completed=state.step, description=f"train {text}")
        path = config.out / "heads.safetensors"
        notes = {"steps": str(config.steps), "seed": str(config.seed)}
        save_heads(state.heads, path, notes)
        # what is judged is what is shipped: the rounded weights, computing in float32
        found = evaluate(load_heads(path), held_out)
        (config.out / "errors.json").write_text(json.dumps(found.as_dict(), indent=2) + "\n")
    return path


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    )


def _gather(
    roots: tuple[str, ...], split: str, varied: float, cache: Path, progress: Progress
) -> list[Examples]:
    examples = []
    for root in roots:
        task = progress.add_task(f"features of {Path(root).name}, {split}")
        examples += cached_examples(root, split, varied, cache, _reporter(progress, task))
    if not examples:
        raise ConfigError(f"{', '.join(roots)}: no samples in the split {split!r}")
    return examples


def _reporter(progress: Progress, task: TaskID) -> OnProgress:
    return lambda done, of: progress.update(task, completed=done, total=of)


def _begin(config: TrainHeads) -> _State:
    """New heads, or those of an interrupted run of the same configuration."""
    torch.manual_seed(config.seed)
    heads = Heads(HeadsConfig(config.features, config.linear))
    heads = heads.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        heads.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    state = _State(heads, optimizer)
    path = _checkpoint(config)
    if path.exists():
        saved = torch.load(path, weights_only=True)
        if saved["config"] != _fingerprint(config):
            raise ConfigError(f"{path} is of another configuration: choose another --out")
        heads.load_state_dict(saved["heads"])
        optimizer.load_state_dict(saved["optimizer"])
        state.step = saved["step"]
    return state


def _save_checkpoint(state: _State, config: TrainHeads) -> None:
    path = _checkpoint(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    content = {
        "config": _fingerprint(config),
        "heads": state.heads.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
    }
    torch.save(content, aside)
    aside.replace(path)


def _checkpoint(config: TrainHeads) -> Path:
    return config.out / "checkpoint.pt"


def _fingerprint(config: TrainHeads) -> str:
    settings = vars(config) | {"out": None, "cache": None, "threads": None}
    return repr(sorted((name, str(value)) for name, value in settings.items()))


def _count_classes(examples: list[Examples]) -> Tensor:
    counts = np.zeros(256, np.int64)
    for each in examples:
        # every eighth row: a fraction of the pixels says as much
        counts += np.bincount(each["classes"][:, ::8].ravel(), minlength=256)
    return torch.from_numpy(counts[: len(COARSE_CLASSES)])


def _batches(
    examples: list[Examples], config: TrainHeads, start: int
) -> Iterator[dict[str, Tensor]]:
    """Batches of the steps from `start`, in an order that the seed alone decides."""
    places = [
        (shard, row) for shard, each in enumerate(examples) for row in range(len(each["pixels"]))
    ]
    epoch, order = -1, np.zeros(0, np.int64)
    per_epoch = max(1, len(places) // config.batch_size)
    for step in range(start, config.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([config.seed, epoch]).permutation(len(places))
        first = step % per_epoch * config.batch_size
        chosen = [places[index] for index in order[first : first + config.batch_size]]
        yield {
            name: torch.from_numpy(np.stack([examples[shard][name][row] for shard, row in chosen]))
            for name in examples[0]
        }


def _step(
    state: _State, batch: dict[str, Tensor], weights: Tensor, config: TrainHeads
) -> dict[str, float]:
    for group in state.optimizer.param_groups:
        group["lr"] = config.learning_rate * _schedule(state.step / config.steps)
    torch.manual_seed(config.seed * 1_000_003 + state.step)  # of dropout: the same after a resume
    found = compute_losses(state.heads, batch, weights)
    loss = torch.stack(list(found.values())).sum()
    if not torch.isfinite(loss):
        raise TrainingError(f"step {state.step}: the loss is {loss.item()}")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.heads.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    return {name: each.item() for name, each in found.items()}


def compute_losses(heads: Heads, batch: dict[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    """Weighted losses by output, for a batch of `examples.Examples`."""
    form: dict[str, Any] = {"memory_format": torch.channels_last}
    features = batch["features"].to(torch.bfloat16, **form)
    pixels = (batch["pixels"].permute(0, 3, 1, 2).float() / 255).contiguous(**form)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = heads(features, pixels)
    return {
        "depth": losses.disparity_loss(predictions.disparity, batch["depth"].float()),
        "normals": losses.normal_loss(predictions.normals, batch["normals"]),
        "classes": 0.5 * losses.class_loss(predictions.logits, batch["classes"], weights),
    }


def _schedule(done: float) -> float:
    """Up over the first fiftieth, then down as a cosine."""
    return min(1.0, done * 50) * 0.5 * (1 + math.cos(math.pi * done))


def main() -> None:
    """The command line."""
    train(tyro.cli(TrainHeads))


if __name__ == "__main__":
    main()
