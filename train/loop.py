"""The training loop. Whenever it is killed, it goes on from the last checkpoint to the same end.

Samples, crops and masks of a step follow from its number, and the processes of a training share
them out: so a run can also go on with more or fewer of them.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train import checkpoint, runs
from fourmill.train.ahead import HostCopy
from fourmill.train.averages import follow_average
from fourmill.train.batch import Batch
from fourmill.train.boards import boards
from fourmill.train.config import ModelConfig, TrainConfig
from fourmill.train.devices import autocast, choose_dtype
from fourmill.train.domains import Domains
from fourmill.train.loss import count_targets
from fourmill.train.masking import Masking
from fourmill.train.meter import LossMeter
from fourmill.train.metrics import MetricsLog, last_losses
from fourmill.train.model import FourM, ModelShape
from fourmill.train.optim import lr_at, make_optimizers
from fourmill.train.parallel import LossOf, Spread
from fourmill.train.plan import plan_run
from fourmill.train.processes import Process, processes
from fourmill.train.profiling import profiler
from fourmill.train.progress import OnProgress, Progress, say
from fourmill.train.saving import Saver, State, best_checkpoint
from fourmill.train.selection import Selection
from fourmill.train.sources import open_loaders
from fourmill.train.speed import speed_of
from fourmill.train.tensors import local, placed_as, swap, whole
from fourmill.train.unigrams import unigram_losses
from fourmill.train.warm import start_from

EVAL_SEED = 1_000_003
"""Added to a run's seed for masks of its evaluation, which no training masks should share."""

_UNIGRAM_SAMPLES = 2000  # that frequencies of tokens are counted on, at most


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    Attributes:
        checkpoint: folder of the last one.
        best: folder of the one with the lowest loss on `val`, if it was saved after an evaluation.
        val_losses: nats per target by modality, of the last evaluation.
    """

    checkpoint: Path
    best: Path | None
    step: int
    val_losses: dict[str, float]


def train(
    config: TrainConfig, on_progress: OnProgress | None = None, profiled_steps: int = 0
) -> TrainResult:
    """Train to `config.steps`, from the last checkpoint if there is one.

    On one machine, with one number of threads and processes, the weights are the same to the bit
    however often the run was killed. A run that is finished returns at once.

    Args:
        profiled_steps: so many steps are recorded, into `profile.json` of the run's folder.

    Raises:
        DatasetError: there is no dataset, or a shard is broken.
        ConfigError: the dataset lacks what the configuration names, `out` holds another run or is
            in use, or there are more processes than samples in a step.
        TrainingError: the loss is not finite, or a checkpoint cannot be written.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with processes(config.device) as process:
        run = plan_run(config)
        process.wait()  # nobody writes before all have looked
        if runs.finished_steps(config.out) < config.steps:
            with ExitStack() as stack:
                if process.is_first:
                    stack.enter_context(runs.locked(config.out))
                trainer = _Trainer(run, process, stack)
                if process.is_first:  # now that nothing was refused
                    runs.write_run(run)
                trainer.run(on_progress, profiled_steps)
        process.wait()
    losses = last_losses(config.out / "metrics.jsonl", "val")
    best = best_checkpoint(config.out)
    return TrainResult(runs.checkpoints(config.out)[0], best, config.steps, losses)


def build_model(domains: Domains, config: ModelConfig, seed: int = 0) -> FourM:
    """The model of a configuration, with fresh weights."""
    fields = config.model_dump(exclude={"preset"})
    return FourM(domains, ModelShape(**fields), seed)


def mean(losses: dict[str, float]) -> float:
    """Over the modalities that had targets."""
    return sum(losses.values()) / max(1, len(losses))


@dataclass(frozen=True)
class _Parts:
    """What a process computes in one step.

    Attributes:
        own: targets of each part by modality.
        counts: targets of the whole step by modality; `None` where each part is weighed alone.
    """

    selections: list[Selection]
    own: HostCopy
    counts: Tensor | None


class _Trainer:
    def __init__(self, run: runs.Run, process: Process, stack: ExitStack) -> None:
        config = run.config
        if config.batch_size < process.count:
            raise ConfigError(
                f"{process.count} processes share the {config.batch_size} samples of a step: "
                f"raise batch_size, or start fewer"
            )
        self.config, self.process = config, process
        self.dtype = choose_dtype(config.dtype, process.device)
        self.loader, self.val_loader = open_loaders(run, torch.get_num_threads())
        self.masking = Masking(run.domains, config.masking, config.seed)
        self.val_masking = Masking(run.domains, config.masking, config.seed + EVAL_SEED)
        self.model = build_model(run.domains, config.model, config.seed).to(process.device)
        found = checkpoint.load_last(config.out, self.model)
        if found is None and config.init_from is not None:
            begun = start_from(config.init_from, self.model)
            if process.is_first:
                say(str(begun))
        self.state = found.state if found else State(0, 0.0)
        average = self._first_average(found)
        self.model.recompute, self.model.packed = config.recompute, config.packed
        if config.compile:
            _compile(self.model, whole=process.count == 1)
        module = LossOf(self.model, config.loss)
        self.spread = Spread(module, process, config.sharding, self.dtype)
        self.parameters = dict(self.model.named_parameters())
        self.average = {
            name: placed_as(self.parameters[name], each) for name, each in average.items()
        }
        muon = _is_matrix_of_block if config.optimizer == "muon" else None
        self.optimizers = make_optimizers(self.model, config, muon)
        if found:
            self.optimizers.restore(self.model, found.moments, found.state.step)
        self.log = None
        if process.is_first:
            others = stack.enter_context(
                boards(config.out, config.tensorboard, config.wandb, config.model_dump(mode="json"))
            )
            self.log = MetricsLog(config.out / "metrics.jsonl", self.state.step, others)
        self.saver = stack.enter_context(Saver(config.out, config.keep_checkpoints))
        self.meter = LossMeter(run.domains.targets)
        self.worst_norm = torch.zeros((), device=process.device)
        self.waited = 0.0  # for data, since the last line

    def run(self, on_progress: OnProgress | None, profiled_steps: int) -> None:
        config, process = self.config, self.process
        first = self.state.step
        for loader in (self.loader, self.val_loader):
            loader.check(part=process.rank, parts=process.count)
        if not first and self.log is not None:
            self.log.write("unigram", 0, self._unigrams())
        process.wait()
        recorder = profiler(config.out, profiled_steps if process.is_first else 0)
        began = time.monotonic()
        told = (first, began)
        with recorder as next_step:
            for step, parts in enumerate(self._masked(first), first):
                self._step(step, parts)
                next_step()
                done = step + 1
                seconds = time.monotonic() - began
                rate = (done - first) * config.batch_size / seconds
                is_saved = done % config.checkpoint_every == 0 or done == config.steps
                is_judged = done % config.eval_every == 0 or done == config.steps
                is_told = done % config.log_every == 0 or is_saved
                loss = val_loss = None
                if is_told or is_judged:
                    self._refuse_what_is_not_finite(done)
                if is_told:
                    loss = self._tell(done, told, self.state.seconds + seconds)
                    told = (done, time.monotonic())
                computed = time.monotonic()
                if is_judged:
                    val_loss = self._judge(done)
                if is_saved:
                    self._save(State(done, self.state.seconds + seconds, val_loss))
                # the speed is that of training, without what is judged and saved
                told = (told[0], told[1] + time.monotonic() - computed)
                if on_progress is not None and process.is_first:
                    on_progress(Progress(done, config.steps, rate, loss))

    def _parts(self, first: int) -> Iterator[list[Batch]]:
        """This process's parts of every step: what is computed at once."""
        config, process = self.config, self.process
        most = -(-config.batch_size // process.count)
        count = -(-most // (config.micro_batch or most))
        count = min(count, config.batch_size // process.count)  # no part is empty

        def positions() -> Iterator[NDArray[np.int64]]:
            for step in range(first, config.steps):
                every = step * config.batch_size + np.arange(config.batch_size)
                yield from np.array_split(every[process.rank :: process.count], count)

        batches = self.loader.read_ahead(positions(), 2 * count, self.masking.wants_pixels)
        for _ in range(first, config.steps):
            began = time.monotonic()
            parts = [next(batches) for _ in range(count)]
            self.waited += time.monotonic() - began
            yield parts

    def _masked(self, first: int) -> "Iterator[_Parts]":
        """The parts of every step, masked a step ahead, so that their counts are there in time."""
        ahead = None
        for batches in self._parts(first):
            selections = [self.masking(each.to(self.process.device)) for each in batches]
            own = torch.stack([count_targets(self.model.domains, each) for each in selections])
            counts = None
            if self.config.loss != "mod_rank":
                counts = self.process.total(own.sum(0))
            if ahead is not None:
                yield ahead
            ahead = _Parts(selections, HostCopy(own), counts)
        if ahead is not None:
            yield ahead

    def _step(self, step: int, parts: "_Parts") -> None:
        """One step of the optimizer."""
        config, process = self.config, self.process
        count = len(parts.selections)
        scale = 1.0 if parts.counts is not None else 1 / (count * process.count)
        self.optimizers.zero_grad()
        for number, (part, own) in enumerate(
            zip(parts.selections, parts.own.tolist(), strict=True), 1
        ):
            with self.spread.part(is_last=number == count):
                with autocast(process.device, self.dtype):
                    loss = self.spread(part, parts.counts, own)
                self.spread.backward(loss.total * scale)
            self.meter.add(loss)
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or math.inf))
        # of the device nothing is asked in every step: it would have to catch up
        self.worst_norm = torch.maximum(self.worst_norm, norm.nan_to_num(math.inf, math.inf))
        if process.device.type == "cpu":
            self._refuse_what_is_not_finite(step + 1)
        self.optimizers.step(lr_at(step, config))
        if self.average:
            weights = [local(each) for each in self.parameters.values()]
            averaged = [local(self.average[name]) for name in self.parameters]
            follow_average(averaged, weights, config.ema, step)

    def _refuse_what_is_not_finite(self, step: int) -> None:
        if not math.isfinite(float(self.worst_norm)):
            raise TrainingError(
                f"step {step}, or since the last line before it: the loss or its gradient is not "
                f"finite; the weights are those of the last checkpoint: lower `lr` "
                f"({self.config.lr:g}) or `clip` ({self.config.clip})"
            )

    def _tell(self, done: int, told: tuple[int, float], seconds: float) -> float:
        """Write a line about the steps since the last one; gives the loss."""
        losses, targets = self.meter.take(self.process)
        steps, passed = done - told[0], time.monotonic() - told[1]
        waited, self.waited = self.waited, 0.0
        if self.log is not None:
            figures = speed_of(
                self.model, self.config, self.process, targets, steps, passed, waited
            )
            lr = lr_at(done - 1, self.config)
            self.log.write("train", done, losses, lr=lr, **figures, seconds=round(seconds, 2))
        return mean(losses)

    def _judge(self, done: int) -> float:
        """Evaluate on `val`, and write a line; gives the loss."""
        weights = list(self.parameters.values()) if self.average else []
        averaged = [self.average[name] for name in self.parameters] if self.average else []
        swap(weights, averaged)
        losses = self._evaluate()
        self.spread.let_go()
        swap(weights, averaged)
        if self.log is not None:
            self.log.write("val", done, losses)
        return mean(losses)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        config, process = self.config, self.process
        meter = LossMeter(self.model.domains.targets)
        count = min(len(self.val_loader), config.eval_samples or len(self.val_loader))
        size = config.micro_batch or -(-config.batch_size // process.count)
        every = [np.arange(each, min(each + size, count)) for each in range(0, count, size)]
        for first in range(0, len(every), process.count):
            place = first + process.rank
            # where parts of the model are elsewhere, all have to compute as often
            rows = every[place if place < len(every) else 0]
            batch = self.val_loader.rows(rows, self.val_masking.wants_pixels)
            selection = self.val_masking(batch.to(process.device))
            with autocast(process.device, self.dtype):
                loss = self.spread(selection)
            if place < len(every):
                meter.add(loss)
        return meter.take(process)[0]

    def _save(self, state: State) -> None:
        # in one piece, which all processes have to ask for together, and the first one writes
        weights, average, moments = (
            {name: whole(each) for name, each in values.items()}
            for values in (self.parameters, self.average, self.optimizers.moments(self.model))
        )
        if self.process.is_first:
            files = checkpoint.contents_of(self.model, weights, average or None, moments)
            self.saver.save(state, files)

    def _first_average(self, found: checkpoint.Loaded | None) -> dict[str, Tensor]:
        if not self.config.ema:
            return {}
        if found is not None and found.average is not None:
            return found.average
        return {name: each.detach().clone() for name, each in self.model.named_parameters()}

    def _unigrams(self) -> dict[str, float]:
        """What guessing by frequency alone would reach on `val`: the bar to get under."""
        samples = min(_UNIGRAM_SAMPLES, len(self.loader) * self.loader.num_crops)
        batches = -(-samples // self.config.batch_size)
        train = (
            self.masking(self.loader.batch(number, self.masking.wants_pixels))
            for number in range(batches)
        )
        val = map(self.val_masking, self.val_loader.all(self.val_masking.wants_pixels))
        return unigram_losses(self.model.domains, train, val)


def _compile(model: FourM, whole: bool) -> None:
    """Whole, or block by block: so gradients can be exchanged before all of them are there."""
    if whole:
        model.compile(fullgraph=True, dynamic=False)
        return
    for block in (*model.encoder, *model.decoder):
        block.compile(fullgraph=True, dynamic=False)


def _is_matrix_of_block(name: str) -> bool:
    return name.startswith(("encoder.", "decoder."))
