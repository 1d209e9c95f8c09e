"""Segmentation: intersection over union by class, from one table of all places."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests import dense_agreement as dense
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Modality
from fourmill.train.evaluation.metric import Metric, Scores

_NO_CLASS = UNKNOWN_CLASS - 1  # what is predicted where it is no class of the truth


class ClassMetric(Metric):
    """`mean_iou` over classes that occur in the truths or the predictions, and `pixel_accuracy`.

    Classes are the same if their names are, or, where either side has none, their numbers. Places
    whose truth is unknown, or of an ignored class, do not count; an unknown prediction is a wrong
    one.

    Args:
        truth: the modality of the truths; `predicted` of what is judged.
        ignored: names of the truth's classes, or their numbers where they have no names.

    Raises:
        UnknownNameError: an ignored class that the truth does not have.
        ConfigError: the truth has classes that nothing predicted can be.
    """

    headline = "mean_iou"

    def __init__(self, truth: Modality, predicted: Modality, ignored: Collection[str] = ()) -> None:
        self._truth, self._predicted = truth, predicted
        self._ignored = [_index(truth, each) for each in ignored]
        _refuse_other_classes(truth, predicted, self._ignored)
        self._confusion = np.zeros((UNKNOWN_CLASS + 1,) * 2, np.int64)

    def add(self, truth: Label, predicted: Label) -> Scores:
        assert isinstance(truth, np.ndarray)
        assert isinstance(predicted, np.ndarray)
        ours, theirs = dense.common_classes(self._truth, truth, self._predicted, predicted)
        ours = np.where(np.isin(ours, self._ignored), UNKNOWN_CLASS, ours).astype(np.uint8)
        is_none = theirs >= (self._truth.channels or _NO_CLASS)
        theirs = np.where(is_none, _NO_CLASS, theirs).astype(np.uint8)
        confusion = dense.confusion(ours, theirs)
        self._confusion += confusion
        return self._scores(confusion)

    def totals(self) -> Scores:
        return self._scores(self._confusion)

    def details(self) -> dict[str, Any]:
        shares = self._shares(self._confusion)
        names = self._truth.classes or tuple(map(str, range(_NO_CLASS)))
        return {
            "iou_by_class": {
                name: round(float(share), 4)
                for name, share in zip(names, shares, strict=False)
                if not math.isnan(share)
            }
        }

    def _scores(self, confusion: NDArray[np.int64]) -> Scores:
        shares = self._shares(confusion)
        known = shares[~np.isnan(shares)]
        found = dense.classes(confusion)
        return {
            "mean_iou": float(known.mean()) if known.size else math.nan,
            "pixel_accuracy": found["agreement"],
        }

    def _shares(self, confusion: NDArray[np.int64]) -> NDArray[np.float64]:
        """By class of the truth; NaN of those that do not count."""
        shares: NDArray[np.float64] = dense.iou_by_class(confusion)[:_NO_CLASS]
        # what is wrongly one of them is a miss of another class, and has no share of its own
        shares[[each for each in self._ignored if each < _NO_CLASS]] = math.nan
        return shares


def _index(definition: Modality, name: str) -> int:
    if name in definition.classes:
        return definition.classes.index(name)
    if name.isdigit() and int(name) < UNKNOWN_CLASS:
        return int(name)
    raise UnknownNameError(f"class of {definition.name}", name, definition.classes)


def _refuse_other_classes(truth: Modality, predicted: Modality, ignored: Collection[int]) -> None:
    wanted = {
        name for number, name in enumerate(truth.classes) if number not in ignored
    }  # fmt: skip
    if truth.classes and predicted.classes:
        missing = sorted(wanted - set(predicted.classes))
        if missing:
            shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            raise ConfigError(
                f"{truth.name} has {len(missing)} classes that {predicted.name} cannot be, such as "
                f"{shown}: name another truth with --truth, or leave them out with --ignore"
            )
    elif not _has_same_numbers(truth, predicted):
        raise ConfigError(
            f"{truth.name} has {truth.channels} classes, {predicted.name} {predicted.channels}, "
            f"and they have no names to tell which are the same: name another truth with --truth"
        )


def _has_same_numbers(truth: Modality, predicted: Modality) -> bool:
    """Whether a class has one number on both sides, where names do not tell."""
    is_its_truth = truth.name.removeprefix("truth_") == predicted.name
    return is_its_truth or truth.channels == predicted.channels
