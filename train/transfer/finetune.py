"""Fine-tuning: killed at any time, it goes on from the last checkpoint.

On one machine, with one number of threads and processes, the weights are the same to the bit
however often the run was killed. Under `torchrun` every process takes its part of each batch.
"""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train import runs, saving
from fourmill.train.averaged import Averaged
from fourmill.train.devices import autocast, choose_dtype
from fourmill.train.metrics import MetricsLog
from fourmill.train.optim import lr_at, make_optimizers
from fourmill.train.pacing import run_steps
from fourmill.train.parallel import copied
from fourmill.train.processes import Process, processes
from fourmill.train.progress import OnProgress
from fourmill.train.saving import Saver, State
from fourmill.train.transfer.classes import Classified, classify
from fourmill.train.transfer.config import FinetuneConfig
from fourmill.train.transfer.data import (
    Batch,
    Pictures,
    dense_places,
    evaluation_batches,
    training_batches,
)
from fourmill.train.transfer.draws import drawing_from, seed_of
from fourmill.train.transfer.finished import build_network, take_encoder, write_finished
from fourmill.train.transfer.layers import lr_scale
from fourmill.train.transfer.network import normalised
from fourmill.train.transfer.plan import RESULT, Run
from fourmill.train.transfer.tasks import make_task


def finetune(run: Run, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Train to the configuration's steps, from the last checkpoint if there is one.

    Returns:
        What `result.json` has: measures on the split that is judged, and for classes what chance,
        and the commonest class, would reach.

    Raises:
        DatasetError: there is no dataset, or a shard is broken.
        ConfigError: model, dataset and task do not go together, or another process trains there.
        TrainingError: the loss is not finite, or pictures cannot be used.
        MissingPackageError: adapters without peft.
    """
    config = run.config
    if not run.is_finished:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with processes(config.device) as process:
            process.wait()  # nobody writes before all have looked
            lock = runs.locked(config.out) if process.is_first else nullcontext()
            with lock, Saver(config.out, config.keep_checkpoints) as saver:
                trainer = _Trainer(run, process, saver)
                if process.is_first:  # not before it is known to be possible
                    run.record.write()
                trainer.run(on_progress)
            process.wait()
    result: dict[str, Any] = json.loads((config.out / RESULT).read_text(encoding="utf-8"))
    return result


class _Trainer:
    def __init__(self, run: Run, process: Process, saver: Saver) -> None:
        config = run.config
        self.config, self.process, self.saver = config, process, saver
        self.dtype = choose_dtype(config.dtype, process.device)
        dataset = Dataset.open(config.root)
        self.classified: Classified | None = None
        if run.label is None:
            snapshot = dataset.snapshot(run.snapshot)
            self.classified = classify(
                dataset, snapshot, config.label, config.classes, config.judge_on
            )
        self.names = self.classified.names if self.classified else ()
        self.task = make_task(config, run.label, self.names)
        network = build_network(config, self.task)
        if config.start is not None:
            take_encoder(network, config.start)
        if config.lora is not None:
            _adapt(network, config)
        network.backbone.set_drop_path(config.drop_path)
        network.backbone.set_grad_checkpointing(config.recompute)
        self.network = network.to(process.device)
        size = config.size or network.backbone.input_size
        network.backbone.grid_of(torch.empty(1, 3, size, size))  # refused before anything is read
        self.train_set, self.val_set = (
            self._pictures(run, dataset, split, size) for split in ("train", config.judge_on)
        )
        depth = len(network.backbone.blocks)
        optimizers = make_optimizers(
            network, config, lr_scale=lambda name: lr_scale(name, depth, config.layer_decay)
        )
        self.trained = Averaged(network, optimizers, config.ema, is_partial=True)
        self.state = saving.load_last(config.out, self.trained.load) or State(0, 0.0)
        path = config.out / "metrics.jsonl"
        self.log = MetricsLog(path, self.state.step) if process.is_first else None
        self.mixup = _mixup(config, len(self.names), process.count)
        self.called: nn.Module = copied(network, process) if process.count > 1 else network
        self.loss_sum = torch.zeros((), device=process.device)
        self.steps_summed = 0

    def run(self, on_progress: OnProgress | None) -> None:
        config = self.config
        batches = training_batches(
            self.train_set, range(self.state.step, config.steps), config.batch_size,
            (self.process.rank, self.process.count), config.readers,
        )  # fmt: skip
        run_steps(
            config, self.process, self.state, batches, self._step, self._tell, self._judge,
            lambda state: self.saver.save(state, self.trained.contents()), on_progress,
        )  # fmt: skip
        metrics = self._evaluate()
        if self.process.is_first:
            self.saver.wait()
            write_finished(self.trained.best, config, self.names, self._result(metrics))

    def _pictures(self, run: Run, dataset: Dataset, split: str, size: int) -> Pictures:
        config = self.config
        classes = None
        if self.classified is not None:
            samples = self.classified.train if split == "train" else self.classified.val
            places, classes = samples.places, samples.classes
        else:
            assert run.label is not None
            names = ["rgb", run.label.name, *([config.mask] if config.mask else [])]
            places = dense_places(dataset, run.snapshot, split, names)
        return Pictures(
            config.root, run.snapshot, places, size, classes, run.label, config.mask, config.others,
            config.augment if split == "train" else None, config.seed,
        )  # fmt: skip

    def _step(self, step: int, batch: Batch) -> None:
        config, device = self.config, self.process.device
        self.network.train()
        self.trained.optimizers.zero_grad()
        images, target = batch["image"].to(device), batch["target"].to(device)
        tokens = {name: each.to(device) for name, each in batch["tokens"].items()}
        parts = range(0, len(images), config.micro_batch or len(images))
        # of all parts and processes, so that each counts by what it knows
        known = self.process.total(self.task.known(target)).clamp(min=1)
        with drawing_from(seed_of(config.seed, step, 2 + self.process.rank), device):
            for start in parts:
                rows = slice(start, start + (config.micro_batch or len(images)))
                own = {name: each[rows] for name, each in tokens.items()}
                pixels, truth = normalised(images[rows]), target[rows]
                if self.mixup is not None:
                    pixels, truth = self.mixup(pixels, truth)
                with self._exchanging(is_last=start == parts[-1]):
                    with autocast(device, self.dtype):
                        outputs = self.called(pixels, own)
                    # times the processes, over which gradients and losses are averaged
                    loss = self.task.loss(outputs, truth) * (self.process.count / known)
                    torch.autograd.backward(loss)
                self.loss_sum += loss.detach()
        trained = [each for each in self.network.parameters() if each.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, config.clip or math.inf)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"step {step + 1}: the loss or its gradient is not finite; the weights are those "
                f"of the last checkpoint: lower `lr` ({config.lr:g}) or `clip` ({config.clip})"
            )
        self.trained.optimizers.step(lr_at(step, config))
        self.trained.follow(step)
        self.steps_summed += 1

    def _exchanging(self, is_last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged with the last part of a step only."""
        if isinstance(self.called, DistributedDataParallel) and not is_last:
            return self.called.no_sync()
        return nullcontext()

    def _tell(self, done: int, rate: float, seconds: float) -> float:
        mean = self.loss_sum / max(1, self.steps_summed)
        loss = float(self.process.total(mean)) / self.process.count
        if self.log is not None:
            self.log.add(
                "train", done, loss=round(loss, 6), lr=lr_at(done - 1, self.config),
                samples_per_second=round(rate, 2), seconds=round(seconds, 2),
            )  # fmt: skip
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.steps_summed = 0
        return loss

    def _judge(self, done: int) -> float:
        metrics = self._evaluate()
        if self.log is not None:
            self.log.add("val", done, metrics=metrics)
        return self.task.error(metrics)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        config, process = self.config, self.process
        network = self.trained.best.eval()
        share = (process.rank, process.count)
        size = config.micro_batch or -(-config.batch_size // process.count)
        total: Tensor | None = None
        for batch in evaluation_batches(self.val_set, size, share, config.readers):
            images, target = (batch[name].to(process.device) for name in ("image", "target"))
            tokens = {name: each.to(process.device) for name, each in batch["tokens"].items()}
            with autocast(process.device, self.dtype):
                outputs = network(normalised(images), tokens)
            sums = self.task.sums(outputs, target)
            total = sums if total is None else total + sums
        if total is None:
            raise TrainingError(
                f"{config.root}: no picture of `{config.judge_on}` can be read by process "
                f"{process.rank} of {process.count}: `fourmill verify` looks at "
                f"all, or start fewer processes"
            )
        return self.task.metrics(process.total(total))

    def _result(self, metrics: dict[str, float]) -> dict[str, Any]:
        """What the finished run reports."""
        config = self.config
        result: dict[str, Any] = {
            "task": config.task, "model": config.model, "label": config.label,
            "steps": config.steps, "train_samples": len(self.train_set),
            "val_samples": len(self.val_set), "metrics": metrics,
        }  # fmt: skip
        if self.classified is not None:
            majority = self.classified.majority
            result |= {
                "classes": list(self.names),
                "without_class": dict(self.classified.without),
                "chance": 1 / len(self.names),
                "majority": majority,
                "margin_over_chance": metrics["top1"] - 1 / len(self.names),
                "margin_over_majority": metrics["top1"] - majority,
            }
        return result


def _adapt(network: nn.Module, config: FinetuneConfig) -> None:
    from fourmill.train.transfer.lora import add_lora

    assert config.lora is not None
    add_lora(
        network.get_submodule("backbone"), config.lora.rank, config.lora.alpha,
        config.lora.dropout, config.lora.layers, config.seed,
    )  # fmt: skip


def _mixup(
    config: FinetuneConfig, classes: int, processes: int
) -> Callable[[Tensor, Tensor], Any] | None:
    if not (config.mixup or config.cutmix):
        return None
    sizes = {config.micro_batch or config.batch_size, config.batch_size // processes}
    if any(size % 2 for size in sizes):
        raise ConfigError(
            f"mixup and cutmix need parts of an even number of samples, found {sorted(sizes)}: "
            f"change batch_size or micro_batch"
        )
    made: Callable[[Tensor, Tensor], Any] = Mixup(  # type: ignore[no-untyped-call]
        config.mixup, config.cutmix, label_smoothing=config.label_smoothing, num_classes=classes
    )
    return made
