"""What a trained model predicts for held-out samples, beside what the labels say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Masking, Modality
from fourmill.train import runs
from fourmill.train.batch import Batch
from fourmill.train.config import TrainConfig
from fourmill.train.domains import Domains
from fourmill.train.generate import Conditions
from fourmill.train.loader import TokenLoader
from fourmill.train.order import spread
from fourmill.train.sampler import Sampler, run_folder
from fourmill.train.schedules import GenerationStep, default_step


@dataclass(frozen=True)
class Prediction:
    """One modality of some samples.

    Attributes:
        definition: of the stored modality (`depth`), or of the tokens where nothing decodes them.
        labels: what the dataset's tokens say, `None` where a sample has none.
        predicted: what the model's tokens say.
    """

    definition: Modality
    labels: list[Label | None]
    predicted: list[Label | None]


@dataclass(frozen=True)
class Predictions:
    """Held-out samples, and every target predicted from the same inputs.

    Attributes:
        keys: of the samples.
        images: their centre crops.
        tokens: what the model generated, by modality; `truth` is what the dataset has.
    """

    keys: list[str]
    images: list[UInt8[np.ndarray, "size size 3"]]
    by_target: dict[str, Prediction]
    tokens: dict[str, NDArray[np.int64]]
    truth: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class HeldOut:
    """Some samples of a split, with their centre crops.

    Attributes:
        batch: what the model may be given of them, and what it is compared with.
        images: the crops as pictures.
    """

    keys: list[str]
    batch: Batch
    images: list[UInt8[np.ndarray, "size size 3"]]


def held_out(where: str | Path, domains: Domains, count: int) -> HeldOut:
    """Samples of the split `val` that a run was judged on, spread evenly over it.

    Args:
        where: the run's folder, or the YAML file that it was trained with.

    Raises:
        ConfigError: there is no run, or its dataset is not there.
    """
    folder = Path(run_folder(where))
    run = runs.read_run(folder) if folder.is_dir() else None
    if run is None:
        raise ConfigError(
            f"{where}: no folder of a run, which would say what was held out: say what is given"
        )
    loader = _open(run, domains, "val")
    return _read(loader, domains, spread(len(loader), count))


class Predictor:
    """A trained model with the data and the tokenizers that belong to it.

    Raises:
        ConfigError: `out` holds no run, or no checkpoint yet.
    """

    def __init__(self, config: TrainConfig) -> None:
        run = runs.read_run(config.out)
        if run is None or not runs.checkpoints(config.out):
            raise ConfigError(f"{config.out} holds no trained model: `fourmill train` makes one")
        self.config = config
        self.sampler = Sampler.load(
            config.out,
            config.tokenizers if config.tokenizers.is_dir() else None,
            config.device,
            config.dtype,
        )
        self.domains: Domains = run.domains
        self._run = run

    def pick(self, count: int, split: str = "val") -> list[int]:
        """Rows spread evenly over a split."""
        return spread(len(self._loader(split)), count)

    def predict(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        rows: Sequence[int],
        split: str = "val",
        steps: Mapping[str, GenerationStep] | None = None,
        seed: int = 0,
    ) -> Predictions:
        """Each target from the same inputs, not from one another.

        Args:
            inputs: modalities that the model is given; targets among them are left out.
            steps: how to generate a target, where not as `default_step` does.

        Raises:
            UnknownNameError: a modality that the model does not know.
            ConfigError: a sample without a readable image.
        """
        for name in (*inputs, *targets):
            self.domains.index(name)
        found = _read(self._loader(split), self.domains, rows)
        conditions = Conditions.of(found.batch.to(self.sampler.device), inputs)
        generated, by_target, truths = {}, {}, {}
        for name in targets:
            step = (steps or {}).get(name) or default_step(self.domains.modality(name))
            tokens = self.sampler.generate(conditions, [step], seed)[name].cpu().numpy()
            generated[name] = tokens
            truth = found.batch.tokens[name].numpy().astype(np.int64)
            truths[name] = truth
            by_target[name] = self._decode(name, truth, found.batch.valid[name].tolist(), tokens)
        return Predictions(found.keys, found.images, by_target, generated, truths)

    def _decode(
        self, name: str, truth: NDArray[Any], valid: list[bool], tokens: NDArray[Any]
    ) -> Prediction:
        labels = [
            row if is_valid else None
            for row, is_valid in zip(self.sampler.decode(name, truth), valid, strict=True)
        ]
        guesses: list[Label | None] = [*self.sampler.decode(name, tokens)]
        return Prediction(self.sampler.stored(name), labels, guesses)

    def _loader(self, split: str) -> TokenLoader:
        return _open(self._run, self.domains, split, self.config.root)


def pixel_inputs(domains: Domains) -> list[str]:
    """The inputs that are pixels."""
    return [name for name in domains.inputs if domains.modality(name).masking is Masking.PIXELS]


def _open(run: runs.Run, domains: Domains, split: str, root: str | None = None) -> TokenLoader:
    dataset = Dataset.open(root or run.config.root)
    return TokenLoader(
        dataset, dataset.snapshot(run.snapshot), domains, split, batch_size=1,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def _read(loader: TokenLoader, domains: Domains, rows: Sequence[int]) -> HeldOut:
    numbers = np.array(rows, np.int64)
    sizes = [each.input_size for each in domains.modalities if each.input_size]
    images = loader.images(numbers, max(sizes, default=112))
    keys = loader.keys
    return HeldOut([keys[row] for row in rows], loader.rows(numbers), list(images))
