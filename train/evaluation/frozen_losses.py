"""Cross-entropy by modality on masks that never change, as the trainer's own evaluation has it."""

from collections.abc import Callable

import numpy as np
import torch

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import Masking as How
from fourmill.train.config import MaskingConfig
from fourmill.train.data import refuse_other_definitions
from fourmill.train.devices import autocast
from fourmill.train.loader import TokenLoader
from fourmill.train.loop import EVAL_SEED
from fourmill.train.loss import compute_loss
from fourmill.train.masking import Masking
from fourmill.train.meter import LossMeter
from fourmill.train.order import spread
from fourmill.train.processes import Process
from fourmill.train.runs import Run
from fourmill.train.sampler import Sampler


def lacking_tokens(sampler: Sampler, dataset: Dataset) -> list[str]:
    """What the dataset lacks for `frozen_losses`; empty where it has all of the model's tokens."""
    wanted = set()
    for each in sampler.domains.modalities:
        is_pixels = each.masking is How.PIXELS
        wanted |= {"rgb", "crop_settings"} if is_pixels else {each.name}
    return sorted(wanted - dataset.modalities.keys())


@torch.no_grad()
def frozen_losses(
    sampler: Sampler,
    dataset: Dataset,
    run: Run | None,
    split: str,
    limit: int | None = None,
    batch_size: int = 8,
    on_samples: Callable[[int], None] = lambda count: None,
) -> dict[str, float]:
    """Nats per target, by modality.

    Masks follow from the run's seed and a sample's number: of the run's own dataset and all of its
    `val`, these are the losses that its `metrics.jsonl` has.

    Args:
        run: that trained the model, whose masking is used; without one, that of a run's defaults.
        limit: of samples, evenly spread; all by default.

    Raises:
        ConfigError: the dataset's tokens are not those of the model.
    """
    refuse_other_definitions(sampler.domains, dataset.head, dataset.url)
    masking = run.config.masking if run is not None else MaskingConfig()
    seed = run.config.seed if run is not None else 0
    frozen = Masking(sampler.domains, masking, seed + EVAL_SEED)
    loader = TokenLoader(
        dataset, dataset.head, sampler.domains, split, batch_size,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    rows = np.array(spread(len(loader), limit), np.int64)
    meter = LossMeter(sampler.domains.targets)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        batch = loader.rows(chosen, frozen.wants_pixels)
        with autocast(sampler.device, sampler.dtype):
            meter.add(compute_loss(sampler.model, frozen(batch.to(sampler.device))))
        on_samples(len(chosen))
    return meter.take(Process(0, 1, sampler.device))[0]
