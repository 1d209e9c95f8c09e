"""A small dataset with a modality of every storage kind that later versions can be made from."""

from collections.abc import Callable

import numpy as np
import pytest

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer, VersionEntry
from fourmill.manifests.tables import Failure

KEYS = [[f"cat-{shard}-{row}" for row in range(4)] for shard in range(3)]


def tokens_of(shard: int) -> np.ndarray:
    rng = np.random.default_rng(shard)
    return rng.integers(0, 16_384, (4, 2, 196)).astype(np.int16)


@pytest.fixture
def write_captions() -> Callable[..., VersionEntry]:
    """A finished, unpublished version of `caption`; the last sample of each shard has none."""

    def write(dataset: Dataset, producer: str = "ingest", text: str = "a cat") -> VersionEntry:
        writer = dataset.writer(modality("caption"), Producer(name=producer, version="1"), {}, 3)
        for shard, keys in enumerate(KEYS):
            writer.commit(
                shard,
                keys,
                payloads=[f"{text} {row}".encode() for row in range(3)] + [b""],
                valid=[True, True, True, False],
                failures=[Failure(keys[3], "ingest", "SampleError", "no caption")],
            )
        return writer.finish()

    return write


@pytest.fixture
def write_tokens() -> Callable[..., VersionEntry]:
    """A finished, unpublished version of `tok_rgb@224` that was read from `caption`."""

    def write(dataset: Dataset, producer: str = "tokenizer") -> VersionEntry:
        writer = dataset.writer(
            modality("tok_rgb@224"),
            Producer(name=producer, version="1"),
            {"caption": dataset.modalities["caption"]},
            3,
        )
        for shard, keys in enumerate(KEYS):
            writer.commit(shard, keys, array=tokens_of(shard))
        return writer.finish()

    return write


@pytest.fixture
def make_dataset(
    write_captions: Callable[..., VersionEntry], write_tokens: Callable[..., VersionEntry]
) -> Callable[[str], Dataset]:
    """Captions and tokens of twelve samples, published in two steps."""

    def make(url: str) -> Dataset:
        dataset = Dataset.open(url, create=True)
        splits = {"train": [(0, 2)], "val": [(2, 3)]}
        dataset.publish([write_captions(dataset)], "ingest", splits=splits)
        dataset.publish([write_tokens(dataset)], "tokenize")
        return dataset

    return make


@pytest.fixture
def dataset(make_dataset: Callable[[str], Dataset], tmp_path) -> Dataset:
    return make_dataset(str(tmp_path / "dataset"))
