"""Who is judged on a task: the model, its ensemble, the mean of the training split, the tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fourmill.manifests.errors import (
    ConfigError,
    MissingPackageError,
    NoDecoderError,
    SampleError,
)
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.base import Tokenizer
from fourmill.train.evaluation.captions import references_of
from fourmill.train.evaluation.ensembles import combine
from fourmill.train.evaluation.judging import Judge
from fourmill.train.evaluation.metric import Metric, Scores
from fourmill.train.evaluation.neighbours import Neighbours
from fourmill.train.evaluation.networks import ClipScore
from fourmill.train.evaluation.samples import Sample, cropped
from fourmill.train.evaluation.settings import Settings
from fourmill.train.evaluation.tasks import Task

SINGLE, MEAN, BOUND = "single sample", "mean of train", "tokenizer bound"
"""What is judged: one sample of the model, the same guess for all, and truths through tokens."""


@dataclass(frozen=True)
class Judged:
    """One sample.

    Attributes:
        place: of it in the split.
        scores: of the model's prediction: of the ensemble if there is one.
    """

    place: int
    key: str
    scores: Scores


@dataclass(frozen=True)
class Result:
    """What a task came to.

    Attributes:
        headline: the score that samples are ordered by.
        columns: scores by what was judged, the model's own first.
        samples: that were judged, in the order of the split.
        skipped: how many were not, by reason.
        details: of the model's predictions, see `Metric.details`.
        notes: what has to be known to read the figures.
    """

    task: Task
    headline: str
    columns: Mapping[str, Scores]
    samples: Sequence[Judged]
    skipped: Mapping[str, int]
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Contest:
    """One task, to which predictions are added sample by sample.

    Args:
        guess: the same for every sample, in the words of the truths; `None` for no baseline.
        neighbours: that know classes; `None` where features are not classified.
        tokenizer: that shows what tokens lose; `None` for no bound.
    """

    def __init__(
        self,
        task: Task,
        judge: Judge,
        settings: Settings,
        guess: Label | None,
        neighbours: Neighbours | None,
        tokenizer: Tokenizer | None,
    ) -> None:
        self._task, self._guess, self._neighbours = task, guess, neighbours
        self._tokenizer, self._classes = tokenizer, settings.class_label
        self._notes = [*judge.notes]
        kind = task.predicted.kind
        self._members = settings.members(kind)
        if self._members < settings.ensemble:
            self._notes.append(f"{kind.value} has no ensemble: one sample is judged")
        self._best = f"ensemble of {self._members}" if self._members > 1 else SINGLE
        self._columns: dict[str, Metric] = {self._best: judge.metric()}
        if self._members > 1:
            self._columns[SINGLE] = judge.metric()
        if guess is not None:
            self._columns[MEAN] = judge.metric(task.truth)
        if tokenizer is not None:
            self._columns[BOUND] = judge.metric()
        self._clip = self._clip_score()
        self._samples: list[Judged] = []
        self._unbound = 0
        self.skipped: Counter[str] = Counter()

    def through_tokens(self, samples: Sequence[Sample]) -> list[Label | None]:
        """What the truths of some samples are after the tokenizer; `None` where they cannot be
        tokenized, or nothing shows what tokens lose."""
        if self._tokenizer is None or not samples:
            return [None] * len(samples)
        try:
            return [*_decoded(self._tokenizer, self._task, samples)]
        except NoDecoderError:
            return [None] * len(samples)
        except SampleError:  # one of them harms no other
            if len(samples) == 1:
                return [None]
            return [each for sample in samples for each in self.through_tokens([sample])]

    def add(
        self, place: int, sample: Sample, drawn: Sequence[Label], bound: Label | None = None
    ) -> None:
        """Judge the predictions of one sample, which has a truth.

        Args:
            drawn: as many as `Settings.members` says.
            bound: what `through_tokens` gave.

        Raises:
            ConfigError: what was decoded does not have the crop's resolution.
        """
        task = self._task
        truth = truth_of(task, sample)
        combined = combine(task.predicted.kind, drawn)
        self._refuse_other_size(truth, combined)
        scores = self._columns[self._best].add(truth, combined)
        self._samples.append(Judged(place, sample.key, scores))
        if self._members > 1:
            self._columns[SINGLE].add(truth, drawn[0])
        if self._guess is not None:
            self._columns[MEAN].add(truth, self._guess)
        if bound is not None:
            self._columns[BOUND].add(truth, bound)
        elif self._tokenizer is not None:
            self._unbound += 1
        if self._neighbours is not None and self._classes is not None:
            name = self._classes.of(sample.labels[self._classes.modality])
            assert name is not None, "or it would have been skipped"
            self._neighbours.ask(combined, name)
        if self._clip is not None:
            self._clip.add(*self._pair(sample, combined))

    def result(self) -> Result:
        """What it came to.

        Raises:
            ConfigError: no sample was judged.
        """
        task = self._task
        if not self._samples:
            why = ", ".join(f"{count} have {reason}" for reason, count in self.skipped.items())
            raise ConfigError(f"{task.name}: no sample has all that it needs: {why}")
        totals = {name: dict(each.totals()) for name, each in self._columns.items()}
        if self._neighbours is not None:
            totals[self._best] |= self._neighbours.accuracy()
        if self._clip is not None:
            totals[self._best]["clip_score"] = self._clip.total()
        notes = [*self._notes]
        if self._unbound:
            notes.append(f"{BOUND}: {self._unbound} truths could not be tokenized")
        best = self._columns[self._best]
        return Result(
            task, best.headline, totals, self._samples, dict(self.skipped), best.details(), notes
        )

    def _refuse_other_size(self, truth: Label, predicted: Label) -> None:
        if not self._task.predicted.kind.is_dense:
            return
        assert isinstance(truth, np.ndarray)
        assert isinstance(predicted, np.ndarray)
        if truth.shape != predicted.shape:
            raise ConfigError(
                f"{self._task.target}: its tokens decode to {list(predicted.shape)}, its crops are "
                f"{list(truth.shape)}: the tokenizer is of another size than the model's tokens"
            )

    def _clip_score(self) -> ClipScore | None:
        """Where a picture and a text come together: the one is given, and the other predicted."""
        kind = self._task.predicted.kind
        has_text = kind is Kind.IMAGE and self._text_input() is not None
        if kind is not Kind.TEXT and not has_text:
            return None
        try:
            return ClipScore()
        except MissingPackageError as error:
            self._notes.append(f"no CLIPScore: {error}")
            return None

    def _text_input(self) -> str | None:
        names = self._task.inputs.values()
        return next((name for name in names if name.startswith("caption")), None)

    def _pair(self, sample: Sample, predicted: Label) -> tuple[Any, str]:
        if self._task.predicted.kind is Kind.TEXT:
            assert isinstance(predicted, str)
            top, left, height, width, _ = sample.crop[0].tolist()
            return sample.image[top : top + height, left : left + width], predicted
        name = self._text_input()
        return predicted, str(sample.labels[name]) if name else ""


def _decoded(tokenizer: Tokenizer, task: Task, samples: Sequence[Sample]) -> list[Label]:
    """The truths of some samples through their tokens; networks take many as fast as one."""
    labels = [each.labels[task.truth.name] for each in samples]
    tokens = tokenizer.tokenize(
        [label for label in labels if label is not None],
        [each.crop for each in samples],
        [each.image_size for each in samples],
        [each.key for each in samples],
    )
    return tokenizer.detokenize(tokens[:, 0] if tokens.ndim == 3 else tokens)


def truth_of(task: Task, sample: Sample) -> Label:
    """What the crop shows of the label that a prediction is compared with."""
    label = sample.labels[task.truth.name]
    assert label is not None
    return cropped(task.truth, label, sample, task.side)


def is_empty(task: Task, label: Label | None) -> bool:
    """Whether a truth says nothing: none, an empty caption, no vector."""
    if label is None or (isinstance(label, np.ndarray) and not label.size):
        return True
    if task.predicted.kind is Kind.TEXT:
        return not references_of(label)
    return False
