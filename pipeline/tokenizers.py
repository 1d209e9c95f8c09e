"""Tokenizers of a run: which are missing, and training them on the dataset's own samples.

A tokenizer that is there is kept, also when the corpus grows or an expert is replaced: tokens of
different times must mean the same. Delete its folder to have it trained again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.modalities import Modality, modality, token_modality
from fourmill.pipeline.batches import Batches
from fourmill.pipeline.config import ImageTokenizerConfig, TokenizeConfig
from fourmill.pipeline.steps import Step
from fourmill.pipeline.work import BLOCK_SAMPLES, load_block, run_step
from fourmill.tokenize import registry
from fourmill.tokenize.base import TokenizerSpec

OnProgress = Callable[[str, int, int], None]
"""Called with (tokenizer, steps done, steps in all)."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TrainingJob:
    """One image-like tokenizer that is to be trained.

    Attributes:
        definition: of the modality, which workers need not know.
        makers: steps that make the modality, upstream first, where the dataset does not store it.
    """

    config: ImageTokenizerConfig
    definition: Modality
    folder: Path
    url: str
    snapshot_id: str
    max_side: int
    makers: Sequence[Step] = ()


def token_name(config: ImageTokenizerConfig) -> str:
    """Name of the tokens that a tokenizer makes.

    >>> token_name(ImageTokenizerConfig(modality="depth", size=112, patch=8))
    'tok_depth@112'
    """
    return token_modality(config.modality, config.size, config.patch, config.vocab_size).name


def missing_images(config: TokenizeConfig, folder: Path) -> list[ImageTokenizerConfig]:
    """Image-like tokenizers of the configuration that are not there yet.

    Raises:
        ConfigError: one is there, but is another than the configuration asks for.
    """
    missing = []
    for each in config.images:
        place = folder / token_name(each)
        if not place.is_dir():
            missing.append(each)
            continue
        expected = token_modality(each.modality, each.size, each.patch, each.vocab_size)
        found = registry.spec(place)
        _refuse_other_modality(place, found, modality(each.modality))
        if (found.vocab_size, found.max_tokens) != (expected.vocab_size, expected.max_tokens):
            raise ConfigError(
                f"{place}: has {found.vocab_size} codes and {found.max_tokens} tokens, the "
                f"configuration asks for {expected.vocab_size} and {expected.max_tokens}; delete "
                f"the folder to train it again, or give another folder as `tokenizers`"
            )
    return missing


def _refuse_other_modality(place: Path, found: TokenizerSpec, wanted: Modality) -> None:
    remedy = "delete the folder to train it again, or give another folder as `tokenizers`"
    if found.reads != wanted.name:
        raise ConfigError(
            f"{place}: found a tokenizer of {found.reads}, expected one of {wanted.name}; {remedy}"
        )
    trained = Modality.of(found.config["definition"])
    for name in ("kind", "channels", "value_range"):
        theirs, ours = getattr(trained, name), getattr(wanted, name)
        if theirs != ours:
            raise ConfigError(
                f"{place}: {wanted.name} had the {name} {theirs} when it was trained, and has "
                f"{ours} now: tokens would mean something else; {remedy}"
            )


def missing_texts(config: TokenizeConfig, folder: Path) -> list[str]:
    """Text-like modalities whose tokenizers are not there yet."""
    names = config.text.modalities
    return [each for each in names if not (folder / registry.text_token_name(each)).is_dir()]


def train_texts(dataset: Dataset, config: TokenizeConfig, folder: Path) -> None:
    """Train the shared vocabulary on the captions of the training split, and save all text-like
    tokenizers of the configuration."""
    from fourmill.tokenize.vocabulary import train_vocabulary

    text = config.text
    codecs = {name: registry.load(place) for name, place in text.codecs.items()}
    shards = dataset.shard_indices("train")
    captions = (
        each["caption"] for each in dataset.samples(["caption"], shards=shards) if each["caption"]
    )
    vocabulary = train_vocabulary(captions, text.vocab_size)
    registry.save_text_tokenizers(
        folder, vocabulary, text.modalities, text.min_score, text.max_tokens, codecs
    )


def train_images(jobs: Sequence[TrainingJob], address: str | None, on_progress: OnProgress) -> None:
    """Train tokenizers side by side, a CPU each.

    The weights depend on the dataset and the configuration alone. A tokenizer appears when it is
    complete; when training is interrupted, it starts again.

    Raises:
        SampleError: a modality without a single label.
    """
    import ray

    from fourmill.pipeline.workers import ray_session

    with ray_session(address):
        board_class: Any = ray.remote(num_cpus=0)(_Board)
        board = board_class.remote()
        task = ray.remote(num_cpus=1, max_retries=2)(_train)
        # the longest first, so that none is left alone at the end
        ordered = sorted(jobs, key=lambda each: not each.makers)
        waiting = [task.remote(each, board) for each in ordered]
        try:
            while waiting:
                finished, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_SECONDS)
                noted: dict[str, tuple[int, int]] = ray.get(board.read.remote())
                for name, (step, steps) in noted.items():
                    on_progress(name, step, steps)
                ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, SampleError) else error) from error


class _Board:
    """Where training tasks note how far they are."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, int]] = {}

    def note(self, name: str, step: int, steps: int) -> None:
        self._steps[name] = (step, steps)

    def read(self) -> Mapping[str, tuple[int, int]]:
        return self._steps


def _train(job: TrainingJob, board: Any) -> TokenizerSpec:
    import torch

    from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer

    torch.set_num_threads(1)  # results depend on it, and must not depend on the machine
    config = job.config
    name = token_name(config)
    samples = list(training_samples(job))
    if not samples:
        raise SampleError(config.modality, f"no label of it to train {name} on")
    told = time.monotonic()

    def note(step: int, steps: int, loss: float) -> None:
        nonlocal told
        if step == steps or time.monotonic() > told + _POLL_SECONDS:
            told = time.monotonic()
            board.note.remote(name, step, steps)

    return train_tokenizer(
        job.definition,
        config.size,
        config.patch,
        config.vocab_size,
        VQTrainConfig(**config.training),
        [each["label"] for each in samples],
        [each["image_size"] for each in samples],
        [each["key"] for each in samples],
        job.folder / name,
        note,
    )


def training_samples(job: TrainingJob) -> Iterator[dict[str, Any]]:
    """The first samples of the training split that have a label: `key`, `image_size`, `label`."""
    config = job.config
    return labelled_samples(
        job.url, job.snapshot_id, config.modality, "train", config.max_samples, job.max_side,
        job.makers,
    )  # fmt: skip


def labelled_samples(
    url: str,
    snapshot_id: str,
    name: str,
    split: str | None,
    count: int,
    max_side: int,
    makers: Sequence[Step] = (),
) -> Iterator[dict[str, Any]]:
    """Of the first samples of a split those that have a label: `key`, `image_size`, `label`.

    Args:
        name: of the modality.
        split: `None` for all samples.
        count: samples that are looked at.
        makers: steps that make the modality, upstream first, where the dataset does not store it.
    """
    dataset = Dataset.open(url)
    snapshot = dataset.snapshot(snapshot_id)
    reads = {each for maker in makers for each in (*maker.reads, *maker.optional)}
    made = {each for maker in makers for each in maker.writes}
    stored = [*sorted(reads - made), *([] if makers else [name]), "image_size"]
    left = count
    for maker in makers:
        maker.load("cpu")
    batches = [Batches(maker) for maker in makers]
    for shard in dataset.shard_indices(split):
        samples = dataset.shard("rgb", shard, snapshot).record.samples
        for start in range(0, min(samples, left), BLOCK_SAMPLES):
            rows = range(start, min(start + BLOCK_SAMPLES, samples, start + left))
            block = load_block(url, snapshot_id, stored, shard, rows, max_side)
            left -= len(rows)
            outcomes: list[Any] = []
            for each in batches:
                outcomes.append(run_step(each, block, outcomes))
            for row, sample in enumerate(block):
                label = sample.get(name)
                if batches:
                    last = outcomes[-1][row]
                    label = None if isinstance(last, SampleError) else last[name]
                if label is not None and not isinstance(label, SampleError):
                    yield {"key": sample["key"], "image_size": sample["image_size"], "label": label}
            if not left:
                return
