"""Angles between normals, over all known places of all pictures."""

import math

import numpy as np

from fourmill.manifests import dense_agreement as dense
from fourmill.manifests.labels import Label
from fourmill.train.evaluation.metric import Metric, Scores

_WITHIN = (11.25, 22.5, 30.0)
_BINS_PER_DEGREE = 100
_NOTHING = 90.0  # degrees, where the truth is known and nothing was predicted


class NormalMetric(Metric):
    """`mean_degrees`, `median_degrees`, and the shares within 11.25, 22.5 and 30 degrees.

    Over places, not over pictures. The median is exact to a hundredth of a degree.
    """

    headline = "mean_degrees"

    def __init__(self) -> None:
        self._histogram = np.zeros(180 * _BINS_PER_DEGREE + 1, np.int64)
        self._sum = 0.0
        self._within = np.zeros(len(_WITHIN), np.int64)

    def add(self, truth: Label, predicted: Label) -> Scores:
        assert isinstance(truth, np.ndarray)
        assert isinstance(predicted, np.ndarray)
        everywhere = dense.angles(truth, predicted)[dense.known_normals(truth)]
        degrees = np.where(np.isnan(everywhere), _NOTHING, everywhere)
        bins = np.rint(degrees * _BINS_PER_DEGREE).astype(np.int64)
        self._histogram += np.bincount(bins, minlength=len(self._histogram))
        within = np.array([(degrees < most).sum() for most in _WITHIN], np.int64)
        self._within += within
        self._sum += float(degrees.sum())
        median = float(np.median(degrees)) if degrees.size else math.nan
        return _scores(degrees.size, float(degrees.sum()), median, within)

    def totals(self) -> Scores:
        count = int(self._histogram.sum())
        middle = np.searchsorted(self._histogram.cumsum(), (count + 1) // 2)
        median = float(middle) / _BINS_PER_DEGREE if count else math.nan
        return _scores(count, self._sum, median, self._within)


def _scores(count: int, total: float, median: float, within: np.ndarray) -> Scores:
    shares = {
        f"within_{int(most)}_degrees": int(each) / count if count else math.nan
        for most, each in zip(_WITHIN, within, strict=True)
    }
    return {
        "mean_degrees": total / count if count else math.nan,
        "median_degrees": median,
        **shares,
    }
