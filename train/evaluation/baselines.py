"""What can be predicted of a sample without looking at it: the mean of the training split.

A prediction is worth what it is better than this.
"""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.values import standardise_depth
from fourmill.train.evaluation.captions import references_of, words_of
from fourmill.train.evaluation.ensembles import as_normals, as_type

_MOST_BOXES = 100  # that COCO's average precision looks at


class MeanPredictor(ABC):
    """One label for all samples, from labels of others."""

    @abstractmethod
    def add(self, label: Label) -> None:
        """Learn from a label of the training split, cropped as predictions are."""

    @abstractmethod
    def predict(self) -> Label | None:
        """The label, the same for every sample; `None` if nothing was learned."""


def mean_predictor(kind: Kind) -> MeanPredictor | None:
    """The best guess without a look, by the kind of modality; `None` of kinds that have none.

    The mean depth (of depth standardised in each picture, as models are that predict no scale),
    plane, edge, feature and picture at each place; the mean normal; the most frequent class at each
    place; the caption that is given most often, and of those the one whose words are in the most
    captions; of boxes the mean box of every class, the most frequent class first.
    """
    match kind:
        case Kind.TEXT:
            return _TypicalCaption()
        case Kind.BOXES:
            return _MeanBoxes()
        case Kind.CLASSES:
            return _FrequentClasses()
        case _ if kind in _AVERAGED:
            return _Mean(kind)
        case _:
            return None


_AVERAGED = frozenset({
    Kind.DEPTH, Kind.NORMAL, Kind.PLANE, Kind.EDGE, Kind.IMAGE, Kind.FEATURE_MAP, Kind.VECTOR,
})  # fmt: skip


class _Mean(MeanPredictor):
    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._sum: NDArray[np.float64] | None = None
        self._count: NDArray[np.float64] | None = None
        self._dtype: np.dtype[np.generic] = np.dtype(np.float32)

    def add(self, label: Label) -> None:
        assert isinstance(label, np.ndarray)
        self._dtype = label.dtype
        values, known = label.astype(np.float64), np.ones(label.shape)
        if self._kind is Kind.NORMAL:
            values = values / 127.5 - 1
        if self._kind is Kind.DEPTH:
            is_known = label > 0
            if not is_known.any():
                return
            known = is_known.astype(np.float64)
            values = np.zeros(label.shape)
            values[is_known] = standardise_depth(label[is_known][None, None])[0, 0]
        if self._sum is None or self._count is None:
            self._sum, self._count = np.zeros(label.shape), np.zeros(label.shape)
        self._sum += values
        self._count += known

    def predict(self) -> Label | None:
        if self._sum is None or self._count is None:
            return None
        mean = self._sum / np.maximum(self._count, 1)
        if self._kind is Kind.NORMAL:
            return as_normals(mean)
        if self._kind is Kind.DEPTH:
            depth: Label = (mean - mean.min()).astype(np.float32)
            return depth
        return as_type(mean, self._dtype)


class _FrequentClasses(MeanPredictor):
    def __init__(self) -> None:
        self._counts: dict[int, NDArray[np.int32]] = {}

    def add(self, label: Label) -> None:
        assert isinstance(label, np.ndarray)
        for each in np.unique(label[label != 255]).tolist():
            counts = self._counts.setdefault(each, np.zeros(label.shape, np.int32))
            counts += label == each

    def predict(self) -> Label | None:
        numbers = sorted(self._counts)
        if not numbers:
            return None
        counts = np.stack([self._counts[each] for each in numbers])
        best = np.array(numbers, np.uint8)[counts.argmax(axis=0)]
        # where no picture knew a class: what is most frequent anywhere
        overall = numbers[int(counts.sum(axis=(1, 2)).argmax())]
        return np.where(counts.any(axis=0), best, overall).astype(np.uint8)


class _TypicalCaption(MeanPredictor):
    def __init__(self) -> None:
        self._captions: Counter[str] = Counter()
        self._words: Counter[str] = Counter()

    def add(self, label: Label) -> None:
        for each in references_of(label):
            self._captions[each] += 1
            self._words.update(set(words_of(each)))

    def predict(self) -> Label | None:
        def typical(caption: str) -> tuple[int, float, str]:
            words = set(words_of(caption))
            mean = sum(self._words[each] for each in words) / max(1, len(words))
            return self._captions[caption], mean, caption

        return max(self._captions, key=typical, default=None)


class _MeanBoxes(MeanPredictor):
    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(4))
        self._counts: Counter[str] = Counter()
        self._samples = 0

    def add(self, label: Label) -> None:
        assert isinstance(label, dict)
        self._samples += 1
        for each in label["instances"]:
            self._sums[each["class_name"]] += np.array(each["boxes"], np.float64)
            self._counts[each["class_name"]] += 1

    def predict(self) -> Label | None:
        if not self._samples:
            return None
        found: list[dict[str, Any]] = [
            {
                "boxes": (self._sums[name] / count).tolist(),
                "class_name": name,
                "score": min(1.0, count / self._samples),
            }
            for name, count in self._counts.most_common(_MOST_BOXES)
        ]
        return {"instances": found}
