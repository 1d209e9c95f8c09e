"""Classes of the samples of a dataset. Nothing here needs torch.

Patterns make classes of texts that are finer or something else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from jaxtyping import Int64

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.class_labels import ClassLabel

_SHOWN = 5  # of many names in a message


@dataclass(frozen=True)
class Samples:
    """Samples of a split with a class each, in the dataset's order.

    Attributes:
        places: shard and row of each.
        classes: index into the names that `class_names` gave; -1 for a class that is not there.
    """

    places: Int64[np.ndarray, "samples 2"]
    classes: Int64[np.ndarray, " samples"]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Classified:
    """A dataset's samples by split, and the names of their classes.

    Attributes:
        val: of the split that is judged, whatever it is called.
        without: samples of each split that have no class, or no picture.
    """

    names: tuple[str, ...]
    train: Samples
    val: Samples
    without: Mapping[str, int]

    @property
    def majority(self) -> float:
        """The share of `val` that saying the commonest class of `train` would get right."""
        commonest = np.bincount(self.train.classes, minlength=len(self.names)).argmax()
        return float((self.val.classes == commonest).mean())


def classify(
    dataset: Dataset,
    snapshot: Snapshot,
    label: str,
    patterns: Mapping[str, Sequence[str]] | None = None,
    judged: str = "val",
) -> Classified:
    """The classes of all samples of `train` and of the split that is judged.

    Args:
        label: modality, and after points the place in it; see `ClassLabel`.
        patterns: of texts, by class; what matches none has no class. By default every text is a
            class.
        judged: the split whose samples become `val`.

    Raises:
        UnknownNameError: no such modality or split.
        ConfigError: the label is no class, `train` has fewer than two classes, or the other split
            has one that `train` has not.
    """
    place = ClassLabel.parse(label)
    if place.modality not in snapshot.modalities:
        raise UnknownNameError(f"modality in {dataset.url}", place.modality, snapshot.modalities)
    found: dict[str, list[tuple[tuple[int, int], str, str]]] = {}
    without: dict[str, int] = {}
    for split in ("train", judged):
        if split not in snapshot.splits:
            raise UnknownNameError("split", split, snapshot.splits)
        texts = _texts(dataset, snapshot, place, split)
        named = [
            (where, key, name)
            for where, key, text in texts
            if (name := _class_of(text, patterns)) is not None
        ]
        found[split] = named
        without[split] = len(texts) - len(named)
    names = tuple(sorted({name for _, _, name in found["train"]}))
    if len(names) < 2:
        raise ConfigError(
            f"{dataset.url}: {label} gives {len(names)} classes in `train`, of "
            f"{len(found['train'])} samples with one; expected two or more: give another label or "
            f"other patterns (`classes`)"
        )
    number = {name: index for index, name in enumerate(names)}
    unknown = sorted({name for _, _, name in found[judged]} - number.keys())
    if unknown:
        listed = ", ".join(unknown[:_SHOWN]) + (", …" if len(unknown) > _SHOWN else "")
        raise ConfigError(
            f"{dataset.url}: `{judged}` has classes that `train` has not, and nothing can learn: "
            f"{listed}; leave them out by naming the others in `classes`"
        )
    if not found[judged]:
        raise ConfigError(f"{dataset.url}: no sample of `{judged}` has a class by {label}")

    def samples(split: str) -> Samples:
        rows = found[split]
        return Samples(
            np.array([where for where, _, _ in rows], np.int64).reshape(-1, 2),
            np.array([number[name] for _, _, name in rows], np.int64),
            tuple(key for _, key, _ in rows),
        )

    return Classified(names, samples("train"), samples(judged), without)


def _texts(
    dataset: Dataset, snapshot: Snapshot, place: ClassLabel, split: str
) -> list[tuple[tuple[int, int], str, str | None]]:
    """Shard and row, key and text of every sample; no text without a label or a picture."""
    rows = []
    for start, stop in snapshot.splits[split]:
        for index in range(start, stop):
            labels = dataset.shard(place.modality, index, snapshot)
            has_picture = dataset.shard("rgb", index, snapshot).record.valid
            for row, key in enumerate(labels.keys):
                text = place.of(labels.label(row)) if has_picture[row] else None
                rows.append(((index, row), key, text))
    return rows


def _class_of(text: str | None, patterns: Mapping[str, Sequence[str]] | None) -> str | None:
    if text is None or not patterns:
        return text
    matching = (name for name, each in patterns.items() if any(fnmatchcase(text, p) for p in each))
    return next(matching, None)
