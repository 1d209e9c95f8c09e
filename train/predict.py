"""What a trained model predicts for held-out samples, beside what the labels say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from fourmill.train.config import TrainConfig
from fourmill.train.domains import Domains
from fourmill.train.generate import Conditions
from fourmill.train.loader import TokenLoader
from fourmill.train.sampler import Sampler
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


class Predictor:
    """A trained model with the data and the tokenizers that belong to it.

    Raises:
        ConfigError: `out` holds no run, or no checkpoint yet.
    """

    def __init__(self, config: TrainConfig) -> None:
        run = runs.read_run(config.out)
        found = runs.checkpoints(config.out)
        if run is None or not found:
            raise ConfigError(f"{config.out} holds no trained model: `fourmill train` makes one")
        self.sampler = Sampler.load(
            config.out,
            config.tokenizers if config.tokenizers.is_dir() else None,
            config.device,
            config.dtype,
        )
        self.domains: Domains = run.domains
        self._dataset = Dataset.open(config.root)
        self._snapshot = self._dataset.snapshot(run.snapshot)

    def pick(self, count: int, split: str = "val") -> list[int]:
        """Rows spread evenly over a split."""
        size = len(self._loader(split))
        return sorted({int(each) for each in np.linspace(0, size - 1, min(count, size))})

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
        loader = self._loader(split)
        batch = loader.rows(np.array(rows, np.int64))
        conditions = Conditions.of(batch.to(self.sampler.device), inputs)
        generated, by_target, truths = {}, {}, {}
        for name in targets:
            step = (steps or {}).get(name) or default_step(self.domains.modality(name))
            tokens = self.sampler.generate(conditions, [step], seed)[name].cpu().numpy()
            generated[name] = tokens
            truth = batch.tokens[name].numpy().astype(np.int64)
            valid = batch.valid[name].tolist()
            truths[name] = truth
            by_target[name] = self._decode(name, truth, valid, tokens)
        sizes = [each.input_size for each in self.domains.modalities if each.input_size]
        images = loader.images(np.array(rows, np.int64), max(sizes, default=112))
        keys = loader.keys
        chosen = [keys[row] for row in rows]
        return Predictions(chosen, list(images), by_target, generated, truths)

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
        return TokenLoader(
            self._dataset, self._snapshot, self.domains, split, batch_size=1,
            threads=torch.get_num_threads(),
        )  # fmt: skip


def pixel_inputs(domains: Domains) -> list[str]:
    """The inputs that are pixels."""
    return [name for name in domains.inputs if domains.modality(name).masking is Masking.PIXELS]
