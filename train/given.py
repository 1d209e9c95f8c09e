"""What a model is given: photographs, texts, and samples of a dataset, read as they are needed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError, UnknownNameError
from fourmill.manifests.labels import Label, decode_image
from fourmill.manifests.modalities import Kind, Masking, Modality
from fourmill.manifests.shards import Shard
from fourmill.train.sampler import Sampler

_MOST_BYTES = 2**28  # of a file that is given


@dataclass(frozen=True)
class Given:
    """Labels of some samples, by what the model calls the modality.

    Attributes:
        keys: of the samples.
        rows: their numbers in the dataset, which draws are keyed by.
        labels: `None` where a sample has none, or one that cannot be read.
        failed: by key, why a label of a sample cannot be read.
    """

    keys: list[str]
    rows: list[int]
    labels: dict[str, list[Label | None]]
    failed: dict[str, SampleError] = field(default_factory=dict)

    def whole(self) -> "Given":
        """The samples that have every label."""
        places = range(len(self.keys))
        return self.some(
            place
            for place in places
            if all(each[place] is not None for each in self.labels.values())
        )

    def some(self, places: Iterable[int]) -> "Given":
        """The samples at some places."""
        there = list(places)
        return Given(
            [self.keys[place] for place in there],
            [self.rows[place] for place in there],
            {name: [each[place] for place in there] for name, each in self.labels.items()},
        )


def read_photo(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Upright RGB of a file.

    Raises:
        ConfigError: no such file, or no picture.
    """
    try:
        photo = read_label(path, decode_image)
    except ConfigError as error:
        raise ConfigError(f"{error}; expected a picture: JPEG, PNG or WebP") from error
    assert isinstance(photo, np.ndarray)
    return photo


def read_label(path: Path, decode: Callable[[bytes], Label]) -> Label:
    """What is in a file.

    Args:
        decode: makes a label of its bytes.

    Raises:
        ConfigError: it cannot be read, is very large, or is no such label.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path}: more than {_MOST_BYTES >> 20} MiB; give a smaller file")
        return decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except SampleError as error:
        raise ConfigError(f"{path}: {error.reason}") from error


def read_text(text: str) -> str:
    """A text that says something.

    Raises:
        ConfigError: it is empty.
    """
    if not text.strip():
        raise ConfigError("--text: an empty text says nothing; write a few words")
    return text


def stored_as(sampler: Sampler, dataset: Dataset, name: str) -> str:
    """Which modality of a dataset an input of the model is read from: its tokens, where the dataset
    has those of the model, else what the model's tokenizer makes them of.

    Args:
        name: of the model.

    Raises:
        ConfigError: the dataset has neither.
    """
    seen = sampler.domains.modality(name)
    if seen.masking is Masking.PIXELS:
        wanted = [seen.folder]
    else:
        # published models call tokens of text as the text is called
        wanted = [name, f"tok_{name}"]
        if name in sampler.tokenizers:
            wanted.append(sampler.tokenizers[name].spec.reads)
    for each in wanted:
        entry = dataset.modalities.get(each)
        if entry is None:
            continue
        definition = entry.definition
        if definition.kind is not Kind.TOKENS or _is_alike(definition, sampler, name):
            return each
    raise ConfigError(
        f"{dataset.url} has none of {', '.join(wanted)}, which the model reads {name} from: label "
        f"it, or take another of {', '.join(sampler.domains.inputs)}"
    )


def available(sampler: Sampler, dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Those inputs of the model that a dataset has, see `stored_as`."""
    there = []
    for name in names:
        with suppress(ConfigError):
            stored_as(sampler, dataset, name)
            there.append(name)
    return there


def read_samples(
    sampler: Sampler,
    dataset: Dataset,
    names: Sequence[str],
    split: str | None = None,
    batch_size: int = 32,
) -> Iterator[Given]:
    """All samples of a split, in order, some at a time, shard by shard; a label that cannot be read
    does not end it.

    Args:
        names: inputs of the model.
        split: `None` for all samples.

    Raises:
        UnknownNameError: there is no such split.
        ConfigError: the dataset lacks one of the modalities.
        ShardError: a file is broken.
    """
    stored = {name: stored_as(sampler, dataset, name) for name in names}
    counts = dataset.shard_column(next(iter(stored.values())), "samples")
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for index in dataset.shard_indices(split):
            shards = {name: dataset.shard(each, index) for name, each in stored.items()}
            keys = next(iter(shards.values())).keys
            first = sum(counts[:index])
            for start in range(0, len(keys), batch_size):
                rows = range(start, min(start + batch_size, len(keys)))
                found = {
                    name: list(pool.map(lambda row, shard=shard: _label_or_error(shard, row), rows))
                    for name, shard in shards.items()
                }
                yield _given([keys[row] for row in rows], [first + row for row in rows], found)


def find_samples(
    sampler: Sampler, dataset: Dataset, names: Sequence[str], keys: Sequence[str]
) -> Given:
    """Some samples by their keys.

    Raises:
        UnknownNameError: no sample has one of the keys; the nearest is named.
        ConfigError: the dataset lacks one of the modalities.
    """
    stored = {name: stored_as(sampler, dataset, name) for name in names}
    places = locate(dataset, next(iter(stored.values()), "rgb"), keys)
    labels = {
        name: [_label(dataset.shard(each, shard), row) for shard, row, _ in places]
        for name, each in stored.items()
    }
    return Given(list(keys), [number for _, _, number in places], labels)


def find_photos(
    dataset: Dataset, keys: Sequence[str]
) -> list[UInt8[np.ndarray, "_height _width 3"] | None]:
    """Pictures of some samples, whole; `None` where they are not readable or there are none.

    Raises:
        UnknownNameError: no sample has one of the keys; the nearest is named.
    """
    if "rgb" not in dataset.modalities:
        return [None] * len(keys)
    labels = [dataset.shard("rgb", i).label(row) for i, row, _ in locate(dataset, "rgb", keys)]
    return [label if isinstance(label, np.ndarray) else None for label in labels]


def locate(dataset: Dataset, modality: str, keys: Sequence[str]) -> list[tuple[int, int, int]]:
    """Shard, row in it, and number in the dataset of some samples.

    Raises:
        UnknownNameError: no sample has one of the keys; the nearest is named.
    """
    wanted = set(keys)
    found: dict[str, tuple[int, int, int]] = {}
    first = 0
    seen: list[str] = []
    for index in dataset.shard_indices():
        there = dataset.shard(modality, index).keys
        for row, key in enumerate(there):
            if key in wanted:
                found[key] = (index, row, first + row)
        if len(found) == len(wanted):
            return [found[key] for key in keys]
        first += len(there)
        seen += there[: max(0, 20 - len(seen))]
    missing = next(key for key in keys if key not in found)
    raise UnknownNameError(f"sample in {dataset.url}", missing, [*seen, "…"])


def _given(
    keys: list[str], rows: list[int], found: dict[str, list[Label | SampleError | None]]
) -> Given:
    failed = {
        key: each
        for column in found.values()
        for key, each in zip(keys, column, strict=True)
        if isinstance(each, SampleError)
    }
    labels = {
        name: [None if isinstance(each, SampleError) else each for each in column]
        for name, column in found.items()
    }
    return Given(keys, rows, labels, failed)


def _is_alike(tokens: Modality, sampler: Sampler, name: str) -> bool:
    """Whether a dataset's tokens are of the model's vocabulary, and as many."""
    ours = sampler.domains.modality(name)
    return (tokens.vocab_size, tokens.max_tokens) == (ours.vocab_size, ours.max_tokens)


def _label(shard: Shard, row: int) -> Label | None:
    label = shard.label(row)
    if shard.entry.definition.kind is Kind.TOKENS and isinstance(label, np.ndarray):
        return label[0] if label.ndim == 2 else label  # the first crop is the centre
    if isinstance(label, str) and not label.strip():
        return None  # it says nothing
    return label


def _label_or_error(shard: Shard, row: int) -> Label | SampleError | None:
    try:
        return _label(shard, row)
    except SampleError as error:
        return error
