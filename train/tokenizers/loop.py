"""The loop that trains a tokenizer: killed at any time, it goes on from the last checkpoint.

On one machine, with one number of threads and processes, the weights are the same to the bit
however often the run was killed. Under `torchrun` every process takes its part of each batch;
gradients are averaged and the code book follows the sum of all.
"""

import json
import logging
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import TrainingError
from fourmill.tokenize.evaluate import evaluate
from fourmill.tokenize.folders import whole_folder
from fourmill.train import saving
from fourmill.train.averaged import Averaged
from fourmill.train.devices import autocast, choose_dtype
from fourmill.train.metrics import MetricsLog, read_metrics
from fourmill.train.optim import lr_at, make_optimizers
from fourmill.train.pacing import run_steps
from fourmill.train.parallel import copied
from fourmill.train.processes import Process, processes
from fourmill.train.progress import OnProgress
from fourmill.train.saving import Saver, State
from fourmill.train.tokenizers.codes import CodeUse
from fourmill.train.tokenizers.data import LabelLoader
from fourmill.train.tokenizers.objectives import make_objective
from fourmill.train.tokenizers.plan import Run

_log = logging.getLogger(__name__)

_START_VALUES = 2**26  # in the crops that a start is taken from, 256 MiB
_START_CROPS = 512


def train(run: Run, on_progress: OnProgress | None = None) -> None:
    """Train to the configuration's steps, from the last checkpoint if there is one.

    A run whose tokenizer is there returns at once.

    Raises:
        DatasetError: there is no dataset, or a shard is broken.
        ConfigError: the network does not fit the modality, or the checkpoints are of another.
        TrainingError: the loss is not finite, or labels cannot be used.
    """
    if run.tokenizer.is_dir():
        return
    config = run.config
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with processes(config.device) as process:
        if process.is_first:
            run.record.write()
        process.wait()
        with Saver(config.out, config.keep_checkpoints) as saver:
            trainer = _Trainer(run, process, saver)
            trainer.train(on_progress)
        if process.is_first:
            trainer.write_tokenizer()
        process.wait()


class _Trainer:
    def __init__(self, run: Run, process: Process, saver: Saver) -> None:
        config = run.config
        self.run, self.config, self.process, self.saver = run, config, process, saver
        self.dtype = choose_dtype(config.dtype, process.device)
        self.objective = make_objective(run.definition, config).to(process.device)
        dataset = Dataset.open(config.root)
        snapshot = dataset.snapshot(run.snapshot)

        def loader(split: str | None) -> LabelLoader:
            return LabelLoader(
                dataset, snapshot, run.definition, split, self.objective.side, config.batch_size,
                config.seed, config.min_crop_scale, config.mask, config.readers,
                (process.rank, process.count),
            )  # fmt: skip

        self.loader = loader("train" if "train" in snapshot.splits else None)
        self.held_out = loader("val") if "val" in snapshot.splits and config.eval_samples else None
        network = self.objective.network
        self.trained = Averaged(network, make_optimizers(network, config), config.ema)
        self.state = saving.load_last(config.out, self.trained.load) or State(0, 0.0)
        metrics = config.out / "metrics.jsonl"
        known = [each for each in read_metrics(metrics) if each["step"] <= self.state.step]
        best = max((each.get("perplexity", 0.0) for each in known), default=0.0)
        self.codes = CodeUse(self.objective.codes, process.device, best)
        self.log = MetricsLog(metrics, self.state.step) if process.is_first else None
        self.sums: dict[str, Tensor] = {}
        self.steps_summed = 0
        self.restarted = 0

    def train(self, on_progress: OnProgress | None) -> None:
        first = self.state.step
        if not first:
            self._start()
        called = self._called()
        run_steps(
            self.config, self.process, self.state, self.loader.batches(first, self.config.steps),
            lambda step, batch: self._step(called, step, batch.to(self.process.device)),
            self._tell, self._evaluate,
            lambda state: self.saver.save(state, self.trained.contents()),
            on_progress,
        )  # fmt: skip

    def write_tokenizer(self) -> None:
        """Write the tokenizer's folder, and beside its weights how it was made."""
        lines = read_metrics(self.config.out / "metrics.jsonl")
        evaluated = [each for each in lines if each["kind"] == "val"]
        record = {
            "config": self.config.model_dump(mode="json"),
            "snapshot": self.run.snapshot,
            "samples": len(self.loader),
            "metrics": evaluated[-1]["metrics"] if evaluated else {},
        }
        with whole_folder(self.run.tokenizer) as aside:
            self.objective.tokenizer(self.trained.best).save(aside)
            (aside / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")

    def _start(self) -> None:
        """Weights from the first crops; every process takes the same, and finds the same."""
        side, channels = self.objective.side, max(1, self.run.definition.channels)
        count = min(_START_CROPS, len(self.loader), max(1, _START_VALUES // (channels * side**2)))
        batch = self.loader.first(count).to(self.process.device)
        self.objective.start(batch.inputs)
        self.trained.restart_average()

    def _called(self) -> Callable[..., Any]:
        objective: nn.Module = self.objective
        if self.config.compile:
            for name in ("encoder", "decoder"):
                self.objective.network.get_submodule(name).compile()
        if self.process.count > 1:
            objective = copied(objective, self.process)
        return objective

    def _step(self, called: Callable[..., Any], step: int, batch: Any) -> None:
        config, objective = self.config, self.objective
        seed = _seed(config.seed, step, self.process)
        objective.train()
        with autocast(self.process.device, self.dtype):
            outcome = called(batch.inputs, batch.valid, seed, step / config.steps)
        self.trained.optimizers.zero_grad()
        torch.autograd.backward(outcome.loss)
        parameters = objective.network.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, config.clip or math.inf)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"step {step + 1}: the loss is {float(outcome.loss.detach()):g} and the "
                f"gradient's norm {float(norm):g}; the weights are those of the last checkpoint: "
                f"lower `lr` ({config.lr:g}) or `clip` ({config.clip})"
            )
        self.trained.optimizers.step(lr_at(step, config))
        # drawn alike in all processes, which replace the same codes
        generator = torch.Generator().manual_seed(_seed(config.seed, step))
        self.restarted += objective.follow(outcome, generator)
        self.trained.follow(step)
        self.codes.add(outcome.tokens.detach())
        for name, value in {"loss": outcome.loss, **outcome.parts}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.steps_summed += 1

    def _tell(self, done: int, rate: float, seconds: float) -> float:
        names = sorted(self.sums)
        values = torch.stack([self.sums[name].float() for name in names]) / self.steps_summed
        means = self.process.total(values) / self.process.count
        losses: dict[str, float] = {
            name: round(value, 6) for name, value in zip(names, means.tolist(), strict=True)
        }
        use, warning = self.codes.take(self.process)
        if self.log is not None:
            self.log.add(
                "train", done, **losses, **use, restarted=self.restarted,
                lr=lr_at(done - 1, self.config), samples_per_second=round(rate, 2),
                seconds=round(seconds, 2),
            )  # fmt: skip
            if warning:
                _log.warning("step %d: %s", done, warning)
        self.sums, self.steps_summed, self.restarted = {}, 0, 0
        return losses["loss"]

    def _evaluate(self, done: int) -> None:
        if self.held_out is None or self.log is None:
            return
        labels, crops, sizes, keys = self.held_out.labels(self.config.eval_samples)
        # a tokenizer freezes its network, which must not be the one that is trained
        tokenizer = self.objective.tokenizer(deepcopy(self.trained.best))
        metrics = evaluate(tokenizer, labels, crops, sizes, keys)  # type: ignore[arg-type]
        self.log.add("val", done, metrics=metrics, samples=len(labels))


def _seed(seed: int, step: int, process: Process | None = None) -> int:
    """Of a step's draws: those of one process, or those that all make alike."""
    rank = 0 if process is None else process.rank + 1
    return (seed * 1_000_003 + step) * 4099 + rank
