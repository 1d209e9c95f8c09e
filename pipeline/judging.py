"""Tokenizers on a dataset's held-out samples: what they lose, and what simpler codes lose.

Modalities that the dataset does not store are made again by their labelers.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourmill.labelers import registry as labelers
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.modalities import Modality
from fourmill.pipeline.steps import LabelStep
from fourmill.tokenize import registry
from fourmill.tokenize.base import TokenizerSpec

if TYPE_CHECKING:
    from fourmill.tokenize.evaluate import Comparison, Samples
    from fourmill.tokenize.perception import Perception

_MAX_SIDE = 512  # of pictures, where no label of the dataset says otherwise
_NUM_CROPS = 2  # of a training sample, as tokenizers are trained
_MIN_CROP_SCALE = 0.4

OnProgress = Callable[[str, int], None]
"""Called with (tokenizer, samples read)."""


@dataclass(frozen=True)
class Judging:
    """What tokenizers are judged on.

    Attributes:
        samples: of the split `val`, or of all where the dataset has none.
        training: most training samples that k-means gets its codes from; it never gets more than
            the tokenizer was trained on.
        stored_only: leave out tokenizers of what would have to be made again.
    """

    samples: int = 64
    training: int = 512
    stored_only: bool = False


@dataclass(frozen=True)
class Verdict:
    """What is found out about one tokenizer.

    Attributes:
        comparison: `None` if it was skipped, for the reason in `skipped`.
        split: that the samples are of, `None` for all samples of the dataset.
        samples: that it was judged on.
        training: samples that k-means got its codes from.
    """

    spec: TokenizerSpec
    comparison: "Comparison | None" = None
    skipped: str = ""
    split: str | None = None
    samples: int = 0
    training: int = 0
    definition: Modality | None = None

    def as_dict(self) -> dict[str, Any]:
        """The metrics by name, for programs."""
        if self.comparison is None:
            return {"skipped": self.skipped}
        rows = self.comparison.metrics
        return {
            "split": self.split or "all",
            "samples": self.samples,
            "k_means_samples": self.training,
            "metrics": {each.metric: each.tokenizer for each in rows},
            "k_means": {each.metric: each.k_means for each in rows if each.k_means is not None},
            "patch_mean": {
                each.metric: each.patch_mean for each in rows if each.patch_mean is not None
            },
            "better_than": {
                each.metric: [name for name, is_better in each.beats.items() if is_better]
                for each in rows
                if each.beats
            },
        }


def judge(
    dataset: Dataset,
    places: Sequence[Path],
    judging: Judging,
    on_progress: OnProgress = lambda name, done: None,
) -> list[Verdict]:
    """A verdict on each tokenizer, on the centre crops of the first held-out samples.

    Args:
        places: folders of tokenizers.
    """
    perception = None
    verdicts = []
    for place in places:
        spec = registry.spec(place)
        if spec.reads == "rgb" and perception is None:
            perception = _perception()
        try:
            found = _judge(dataset, place, judging, perception, on_progress)
        except MissingPackageError as error:
            found = Verdict(spec, skipped=str(error))
        verdicts.append(found)
    return verdicts


def planned(dataset: Dataset, places: Sequence[Path], judging: Judging) -> dict[str, int]:
    """How many samples are read for each tokenizer, by its name."""
    split = _split(dataset)
    held_out = min(judging.samples, _size(dataset, split))
    return {
        registry.spec(each).modality: held_out + _training_count(dataset, each, judging)
        for each in places
    }


def _judge(
    dataset: Dataset,
    place: Path,
    judging: Judging,
    perception: "Perception | None",
    on_progress: OnProgress,
) -> Verdict:
    from fourmill.pipeline.tokenizers import labelled_samples
    from fourmill.tokenize.evaluate import as_judged, compare

    spec = registry.spec(place)
    tokenizer = as_judged(registry.load(place))
    if tokenizer is None:
        return Verdict(spec, skipped="what such tokens lose is not measured")
    try:
        makers = _makers(dataset, spec.reads, judging)
    except ConfigError as error:
        return Verdict(spec, skipped=str(error))
    split = _split(dataset)
    max_side = _max_side(dataset)

    def read(split: str | None, count: int, num_crops: int) -> "Samples":
        found = labelled_samples(
            dataset.url, dataset.head.id, spec.reads, split, count, max_side, makers
        )
        samples = _samples(_told(found, spec.modality, on_progress), num_crops)
        on_progress(spec.modality, count - len(samples.keys))  # those without a label
        return samples

    held_out = read(split, min(judging.samples, _size(dataset, split)), 1)
    if not held_out.keys:
        return Verdict(spec, skipped=f"none of the samples has a label of {spec.reads}")
    training = read("train", _training_count(dataset, place, judging), _NUM_CROPS)
    comparison = compare(tokenizer, held_out, training if training.keys else None, perception)
    return Verdict(
        spec, comparison, "", split, len(held_out.keys), len(training.keys), tokenizer.definition
    )


def _told(
    samples: Iterable[dict[str, Any]], name: str, on_progress: OnProgress
) -> Iterable[dict[str, Any]]:
    for each in samples:
        on_progress(name, 1)
        yield each


def _samples(found: Iterable[dict[str, Any]], num_crops: int) -> "Samples":
    from fourmill.tokenize.crops import crop_settings
    from fourmill.tokenize.evaluate import Samples

    rows = list(found)
    keys, sizes = [each["key"] for each in rows], [each["image_size"] for each in rows]
    return Samples(
        labels=[each["label"] for each in rows],
        crops=[
            crop_settings(key, height, width, num_crops, min_scale=_MIN_CROP_SCALE)
            for key, (height, width) in zip(keys, sizes, strict=True)
        ],
        image_sizes=sizes,
        keys=keys,
    )


def _makers(dataset: Dataset, name: str, judging: Judging) -> list[LabelStep]:
    """Steps that make what the dataset does not store, upstream first."""
    if name in dataset.modalities:
        return []
    maker = labelers.default_maker(name)
    if maker is None:
        raise ConfigError(f"{name} is not stored, and no labeler makes it")
    if judging.stored_only:
        raise ConfigError(f"{name} is not stored; {maker} makes it again without --stored-only")
    max_side = _max_side(dataset)
    chain = labelers.with_makers([maker], dataset.modalities)
    return [LabelStep(each, max_side, keep=labelers.spec(each).transient) for each in chain]


def _perception() -> "Perception | None":
    """A network that packages carry; without it there are no perceptual metrics."""
    from fourmill.labelers.backbones.efficientnet_lite0 import Perceiver
    from fourmill.tokenize.perception import Perception

    try:
        return Perception(Perceiver.name, Perceiver("cpu"))
    except MissingPackageError:
        return None


def _max_side(dataset: Dataset) -> int:
    """That pictures had when the dataset's labels were made."""
    sides = (each.producer.params.get("max_side") for each in dataset.modalities.values())
    return next((int(each) for each in sides if each), _MAX_SIDE)


def _split(dataset: Dataset) -> str | None:
    return "val" if "val" in dataset.head.splits else None


def _size(dataset: Dataset, split: str | None) -> int:
    shards = dataset.shard_indices(split)
    return sum(dataset.shard("rgb", each).record.samples for each in shards)


def _training_count(dataset: Dataset, place: Path, judging: Judging) -> int:
    """As many as the tokenizer had, if that is known, and as there may and can be."""
    if "train" not in dataset.head.splits:
        return 0
    count = min(judging.training, _size(dataset, "train"))
    record = place / "training.json"
    if record.is_file():
        count = min(count, int(json.loads(record.read_text(encoding="utf-8"))["samples"]))
    return count
