"""What every metric does: take samples one by one, and say what they come to together.

Nothing of a sample is kept but sums and counts, so that a metric of a million samples needs as much
memory as one of ten; where a measure needs more, its class says so.
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fourmill.manifests.labels import Label
from fourmill.tokenize import metrics as tokenizer_metrics

Scores: TypeAlias = Mapping[str, float]
"""By name; NaN where a sample, or a dataset, does not tell."""


class Metric(ABC):
    """Truths and predictions of one modality, sample by sample.

    Attributes:
        headline: the score that samples are ordered by, from best to worst.
    """

    headline: str

    @abstractmethod
    def add(self, truth: Label, predicted: Label) -> Scores:
        """Count a sample in; both sides cover the same crop at one resolution.

        Returns:
            Scores of this sample alone; `headline` is among them.
        """

    @abstractmethod
    def totals(self) -> Scores:
        """Scores of all samples together, the most important first."""

    def details(self) -> dict[str, Any]:
        """What is worth knowing beyond the scores, such as scores by class; JSON."""
        return {}


class Means:
    """Means of scores over samples; a sample whose score is NaN has no say in it."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, scores: Scores) -> None:
        """Count a sample in."""
        for name, value in scores.items():
            known = not math.isnan(value)
            self._sums[name] += value if known else 0.0
            self._counts[name] += known

    def result(self) -> dict[str, float]:
        """The means, NaN where no sample told."""
        return {
            name: total / self._counts[name] if self._counts[name] else math.nan
            for name, total in self._sums.items()
        }


class MeanScore(Metric):
    """The mean over samples of what a function measures of each."""

    def __init__(self, measure: Callable[[Label, Label], Scores], headline: str) -> None:
        self._measure = measure
        self.headline = headline
        self._means = Means()

    def add(self, truth: Label, predicted: Label) -> Scores:
        scores = self._measure(truth, predicted)
        self._means.add(scores)
        return scores

    def totals(self) -> Scores:
        found = self._means.result()
        first = {self.headline: found[self.headline]} if self.headline in found else {}
        return first | found


def is_error(metric: str) -> bool:
    """Whether less of it is better, whatever qualifies the metric behind a slash.

    >>> is_error("abs_rel/scale"), is_error("delta1")
    (True, False)
    """
    return tokenizer_metrics.is_error(metric.split("/")[0])
