"""The training loop. Whenever it is killed, it goes on from the last checkpoint to the same end."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import TrainingError
from fourmill.train import runs
from fourmill.train.checkpoint import load_last, save_checkpoint
from fourmill.train.config import ModelConfig, TrainConfig
from fourmill.train.devices import autocast, choose_device, choose_dtype
from fourmill.train.domains import Domains
from fourmill.train.loader import TokenLoader
from fourmill.train.loss import compute_loss
from fourmill.train.masking import Masking
from fourmill.train.meter import LossMeter
from fourmill.train.metrics import MetricsLog, last_losses
from fourmill.train.model import FourM, ModelShape
from fourmill.train.optim import lr_at, make_optimizer, set_lr
from fourmill.train.plan import plan_run
from fourmill.train.progress import OnProgress, Progress
from fourmill.train.saving import State
from fourmill.train.selection import PADDING
from fourmill.train.unigrams import unigram_losses

_EVAL_SEED = 1_000_003  # of masks of the evaluation, which no training masks should share

_UNIGRAM_SAMPLES = 2000  # that frequencies of tokens are counted on


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    Attributes:
        checkpoint: folder of the last one.
        val_losses: nats per target by modality, of the last evaluation.
    """

    checkpoint: Path
    step: int
    val_losses: dict[str, float]


def train(config: TrainConfig, on_progress: OnProgress | None = None) -> TrainResult:
    """Train to `config.steps`, from the last checkpoint if there is one.

    On one machine, with one number of threads, the weights are the same to the bit however often
    the run was killed. A run that is finished returns at once.

    Raises:
        DatasetError: there is no dataset, or a shard is broken.
        ConfigError: the dataset lacks what the configuration names, or `out` holds another run.
        TrainingError: the loss is not finite.
    """
    run = plan_run(config)
    if runs.finished_steps(config.out) < config.steps:
        runs.write_run(run)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        _Trainer(run).run(on_progress)
    losses = last_losses(config.out / "metrics.jsonl", "val")
    return TrainResult(runs.checkpoints(config.out)[0], config.steps, losses)


def build_model(domains: Domains, config: ModelConfig, seed: int = 0) -> FourM:
    """The model of a configuration, with fresh weights."""
    fields = config.model_dump(exclude={"preset"})
    return FourM(domains, ModelShape(**fields), seed)


class _Trainer:
    def __init__(self, run: runs.Run) -> None:
        config = run.config
        self.config = config
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        dataset = Dataset.open(config.root)
        snapshot = dataset.snapshot(run.snapshot)
        cache = config.pixel_cache_mib * 2**20
        threads = torch.get_num_threads()
        self.loader, self.val_loader = (
            TokenLoader(
                dataset, snapshot, run.domains, split, config.batch_size, config.seed,
                cache, threads,
            )
            for split in ("train", "val")
        )  # fmt: skip
        self.masking = Masking(run.domains, config.masking, config.seed)
        self.val_masking = Masking(run.domains, config.masking, config.seed + _EVAL_SEED)
        self.model = build_model(run.domains, config.model, config.seed).to(self.device)
        self.optimizer = make_optimizer(self.model, config)
        self.state = load_last(config.out, self.model, self.optimizer) or State(0, 0.0)
        self.log = MetricsLog(config.out / "metrics.jsonl", self.state.step)
        self.meter = LossMeter(run.domains.targets)
        if config.compile:
            for block in (*self.model.encoder, *self.model.decoder):
                block.compile()

    def run(self, on_progress: OnProgress | None) -> None:
        config = self.config
        first = self.state.step
        if not first:
            self.log.write("unigram", 0, self._unigrams())
        began = time.monotonic()
        for step in range(first, config.steps):
            fill = self._step(step)
            done = step + 1
            seconds = time.monotonic() - began
            rate = (done - first) * config.batch_size / seconds
            is_saved = done % config.checkpoint_every == 0 or done == config.steps
            loss = None
            if done % config.log_every == 0 or is_saved:
                losses = self.meter.take()
                loss = sum(losses.values()) / len(losses)
                total = round(self.state.seconds + seconds, 2)
                self.log.write(
                    "train", done, losses, lr=lr_at(step, config), fill=fill,
                    samples_per_second=round(rate, 2), seconds=total,
                )  # fmt: skip
            if done % config.eval_every == 0 or done == config.steps:
                self.log.write("val", done, self._evaluate())
            if is_saved:
                state = State(done, self.state.seconds + seconds)
                save_checkpoint(
                    config.out, self.model, self.optimizer, state, config.keep_checkpoints
                )
            if on_progress is not None:
                on_progress(Progress(done, config.steps, rate, loss))

    def _step(self, step: int) -> float:
        """One step of the optimizer; gives the share of slots that held tokens."""
        config = self.config
        selection = self.masking(self.loader.batch(step).to(self.device))
        with autocast(self.device, self.dtype):
            loss = compute_loss(self.model, selection, config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.total)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or math.inf)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"step {step + 1}: the loss is {float(loss.total.detach()):g} and the gradient's "
                f"norm {float(norm):g}; the weights are those of the last checkpoint: lower `lr` "
                f"({config.lr:g}) or `clip` ({config.clip})"
            )
        set_lr(self.optimizer, lr_at(step, config))
        self.optimizer.step()
        self.meter.add(loss)
        return round(float((selection.target_modality != PADDING).float().mean()), 4)

    def _unigrams(self) -> dict[str, float]:
        """What guessing by frequency alone would reach on `val`: the bar to get under."""
        batches = -(-_UNIGRAM_SAMPLES // self.config.batch_size)
        train = (self.masking(self.loader.batch(number)) for number in range(batches))
        val = (self.val_masking(batch) for batch in self.val_loader.all())
        return unigram_losses(self.model.domains, train, val)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        meter = LossMeter(self.model.domains.targets)
        for batch in self.val_loader.all():
            selection = self.val_masking(batch.to(self.device))
            with autocast(self.device, self.dtype):
                meter.add(compute_loss(self.model, selection))
        return meter.take()
