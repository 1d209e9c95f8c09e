"""A trained 4M beside truths: every task predicted, decoded and measured, with what to compare."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.base import Tokenizer
from fourmill.train.evaluation.baselines import mean_predictor
from fourmill.train.evaluation.contest import Contest, Result, is_empty
from fourmill.train.evaluation.ensembles import combine
from fourmill.train.evaluation.judging import Judge
from fourmill.train.evaluation.neighbours import Neighbours
from fourmill.train.evaluation.samples import Sample, Split, cropped, cropped_boxes
from fourmill.train.evaluation.settings import Settings
from fourmill.train.evaluation.tasks import Task
from fourmill.train.sampler import Sampler

_TRAIN = "train"

OnSamples = Callable[[int], None]
"""Told how many more samples were looked at."""


class Evaluator:
    """Runs tasks of one model on one dataset."""

    def __init__(self, sampler: Sampler, dataset: Dataset, settings: Settings) -> None:
        self._sampler, self._dataset, self._settings = sampler, dataset, settings

    def split(self, task: Task) -> Split:
        """The samples that a task is judged on.

        Raises:
            UnknownNameError: the dataset has no such split.
            ConfigError: the split is empty.
        """
        return self._split(task, self._settings.split, self._settings.limit)

    def work(self, task: Task) -> int:
        """Samples that a task looks at, those of its baselines too."""
        others = [self._split(task, _TRAIN, limit) for limit in self._others(task).values()]
        return len(self.split(task)) + sum(map(len, others))

    def run(self, task: Task, on_samples: OnSamples = lambda count: None) -> Result:
        """Predict and judge one task.

        Raises:
            ConfigError: no sample has all that the task needs.
            MissingPackageError: the task's metric needs a package that is not installed.
        """
        settings = self._settings
        truths = self._dataset.modalities[task.truth.name]
        contest = Contest(
            task, Judge(task, truths, settings), settings, self._guess(task, on_samples),
            self._neighbours(task, on_samples), self._bound(task),
        )  # fmt: skip
        for part in self._parts(self.split(task)):
            usable: list[tuple[int, Sample]] = []
            for place, sample in part:
                reason = self._lacks(task, sample)
                if sample is None or reason is not None:
                    contest.skipped[reason or ""] += 1
                else:
                    usable.append((place, sample))
            samples = [each for _, each in usable]
            predictions = self.predict(task, samples)
            bounds = contest.through_tokens(samples)
            for (place, sample), drawn, bound in zip(usable, predictions, bounds, strict=True):
                contest.add(place, sample, drawn, bound)
            on_samples(len(part))
        return contest.result()

    def predict(self, task: Task, samples: Sequence[Sample]) -> list[list[Label]]:
        """By sample, as many predictions as the ensemble has members."""
        if not samples:
            return []
        given = {
            name: [self._given(own, each, task) for each in samples]
            for name, own in task.inputs.items()
        }
        conditions = self._sampler.conditions(
            len(samples), given, [each.number for each in samples]
        )
        settings, kind = self._settings, task.predicted.kind
        step = settings.step(self._sampler.domains.modality(task.target), kind)
        drawn = []
        for number in range(settings.members(kind)):
            tokens = self._sampler.generate(conditions, [step], settings.seed + number)
            drawn.append(self._sampler.decode(task.target, tokens[task.target]))
        return [list(each) for each in zip(*drawn, strict=True)]

    def _split(self, task: Task, name: str, limit: int | None) -> Split:
        wanted = [task.truth.name, *task.inputs.values()]
        place = self._settings.class_label
        if place is not None and task.predicted.kind is Kind.VECTOR:
            wanted.append(place.modality)
        return Split(self._dataset, name, wanted, limit)

    def _parts(self, split: Split) -> Iterator[list[tuple[int, Sample | None]]]:
        size = self._settings.batch_size
        for start in range(0, len(split), size):
            places = range(start, min(start + size, len(split)))
            yield [(place, split.sample(place)) for place in places]

    def _others(self, task: Task) -> dict[str, int | None]:
        """What else is read, of the training split: limits of samples."""
        settings, found = self._settings, dict[str, int | None]()
        if _TRAIN not in self._dataset.head.splits:
            return found
        if settings.training and mean_predictor(task.predicted.kind) is not None:
            found["baseline"] = settings.training
        if settings.classes is not None and task.predicted.kind is Kind.VECTOR:
            found["neighbours"] = settings.bank
        return found

    def _guess(self, task: Task, on_samples: OnSamples) -> Label | None:
        """The mean of the training split, in the words of the truths."""
        predictor = mean_predictor(task.predicted.kind)
        others = self._others(task)
        if predictor is None or "baseline" not in others:
            return None
        for part in self._parts(self._split(task, _TRAIN, others["baseline"])):
            for _, sample in part:
                label = None if sample is None else sample.labels[task.truth.name]
                if sample is not None and label is not None and not is_empty(task, label):
                    predictor.add(cropped(task.truth, label, sample, task.side))
            on_samples(len(part))
        return predictor.predict()

    def _neighbours(self, task: Task, on_samples: OnSamples) -> Neighbours | None:
        """Predicted features of training samples whose class is known."""
        place, others = self._settings.class_label, self._others(task)
        if place is None or "neighbours" not in others:
            return None
        known = Neighbours()
        for part in self._parts(self._split(task, _TRAIN, others["neighbours"])):
            usable = [each for _, each in part if each is not None and not self._lacks(task, each)]
            drawn = self.predict(task, usable)
            for sample, features in zip(usable, drawn, strict=True):
                name = place.of(sample.labels[place.modality])
                assert name is not None, "or it would lack something"
                known.learn(combine(Kind.VECTOR, features), name)
            on_samples(len(part))
        return known

    def _bound(self, task: Task) -> Tokenizer | None:
        """What makes the task's tokens, where it can read the truths."""
        names = {each for each in (task.truth.classes, task.predicted.classes) if each}
        same = task.truth.kind is task.predicted.kind and len(names) < 2
        return self._sampler.tokenizers[task.target] if self._settings.bound and same else None

    def _lacks(self, task: Task, sample: Sample | None) -> str | None:
        """What a sample cannot be judged for; `None` of one that can."""
        if sample is None:
            return "no readable picture"
        if is_empty(task, sample.labels[task.truth.name]):
            return f"no {task.truth.name}"
        for own in task.inputs.values():
            label = sample.labels[own]
            if label is None or (isinstance(label, str) and not label.strip()):
                return f"no {own}"
        place = self._settings.class_label
        if place is not None and task.predicted.kind is Kind.VECTOR:
            label = sample.labels[place.modality]
            return f"no {place}" if place.of(label) is None else None
        return None

    def _given(self, own: str, sample: Sample, task: Task) -> Label:
        label = sample.labels[own]
        assert label is not None
        kind = self._dataset.modalities[own].definition.kind
        if kind is Kind.TOKENS:
            assert isinstance(label, np.ndarray)
            first: Label = label[0] if label.ndim == 2 else label  # of the centre square
            return first
        others = (self._dataset.modalities[each].definition.kind for each in task.inputs.values())
        if kind is Kind.BOXES and not any(each.is_dense for each in others):
            # without a picture, or a map of it, boxes are taken as those of a square
            assert isinstance(label, dict)
            return cropped_boxes(label, sample.crop[0], sample.image_size)
        return label
