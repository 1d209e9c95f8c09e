"""How an evaluation is done. Nothing here needs torch."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.train.class_labels import ClassLabel
from fourmill.train.evaluation.ensembles import is_combined
from fourmill.train.schedules import GenerationStep, default_step

Alignment: TypeAlias = Literal["scale_and_shift", "scale", "none"]
"""What of a prediction of depth is fitted to the truth before they are compared."""


@dataclass(frozen=True)
class Settings:
    """What decides the figures, beside the model and the dataset.

    Attributes:
        split: whose samples are predicted.
        limit: of samples, evenly spread over the split; all by default.
        ensemble: samples of each prediction that become one, where several can, see `members`.
        seed: of the draws; sample `i` of an ensemble is drawn with `seed + i`.
        steps: in which grids are filled; by default as `default_step` does.
        temperature: 0 takes the likeliest tokens; by default 1 where an ensemble is drawn, else 0.
        alignments: of depth.
        ignored: classes that do not count.
        training: samples of the split `train` that baselines learn from; 0 for no baselines.
        bound: whether truths are tokenized and decoded again, to see what tokens lose.
        classes: what says the class of each sample, see `ClassLabel`; features are then judged by
            k-NN.
        bank: samples of `train` whose predicted features k-NN knows, evenly spread; all by default.
        batch_size: samples predicted at once; decides no figure but for rounding.

    Raises:
        ConfigError: no samples, or an ensemble whose samples would all be the same.
    """

    split: str = "val"
    limit: int | None = None
    ensemble: int = 1
    seed: int = 0
    steps: int | None = None
    temperature: float | None = None
    alignments: tuple[Alignment, ...] = ("scale_and_shift",)
    ignored: tuple[str, ...] = ()
    training: int = 1000
    bound: bool = True
    classes: str | None = None
    bank: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("limit", "ensemble", "steps", "bank", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {value}: expected at least 1")
        if self.training < 0:
            raise ConfigError(f"--training {self.training}: expected 0 or more samples")
        if self.ensemble > 1 and self.temperature == 0:
            raise ConfigError(
                f"--ensemble {self.ensemble} --temperature 0: all samples would be the same; give "
                f"a temperature above 0"
            )
        if not self.alignments or len(set(self.alignments)) < len(self.alignments):
            raise ConfigError("--alignments: expected one or more, each once")

    @property
    def class_label(self) -> ClassLabel | None:
        """Where the class of each sample is written, if features are judged by it."""
        return None if self.classes is None else ClassLabel.parse(self.classes)

    def members(self, predicted: Kind) -> int:
        """How many samples become one: the ensemble, or one where several cannot."""
        return self.ensemble if is_combined(predicted) else 1

    def step(self, target: Modality, predicted: Kind) -> GenerationStep:
        """How a target is generated, which decodes to `predicted`."""
        usual = default_step(target)
        temperature = self.temperature
        if temperature is None:
            temperature = 1.0 if self.members(predicted) > 1 else 0.0
        is_grid = usual.scheme != "autoregressive"
        steps = self.steps if self.steps is not None and is_grid else usual.steps
        return replace(usual, steps=steps, temperature=temperature)
