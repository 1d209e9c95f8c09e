"""What a corpus is to `ingest`: a listing that costs little, and a way to read one item of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a listing.

    Attributes:
        name: unique in its source and stable over time: a relative path, a member's key, an index.
        split: `train`, or a held-out split; items of different splits never share a shard.
        where: whatever the source needs to read it; picklable, not interpreted by others.
        group: items that are read together, such as the rows of a parquet row group, stay together
            in shards; `""` for those that cost the same anywhere.
    """

    name: str
    split: str = "train"
    where: Any = None
    group: str = ""


@dataclass(frozen=True)
class RawSample:
    """One image with all that its corpus knows of it.

    Attributes:
        image: the bytes of a JPEG, PNG or WebP, kept as they are.
        caption: `None` where the corpus has none.
        labels: labels by modality (`truth_depth`, …), where the corpus has them, or what is wrong
            with them.
        source: what is known of the origin: `file`, `title`, `creator`, `licence`, `url`, ….
    """

    image: bytes
    caption: str | None = None
    labels: Mapping[str, Label | SampleError] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)


Reading = RawSample | SampleError
"""What reading an item ends in."""


@runtime_checkable
class Source(Protocol):
    """A corpus. Must be picklable: items are read by many workers."""

    @property
    def name(self) -> str:
        """`folder`, `webdataset`, `parquet`, `builtin:photos`, …"""

    @property
    def params(self) -> Mapping[str, Any]:
        """All that decides what the samples are; part of the lineage."""

    @property
    def label_modalities(self) -> Sequence[str]:
        """Labels that its samples may have, by name."""

    def listing(self) -> Sequence[Item]:
        """All items, in a stable order.

        Raises:
            SourceError: the corpus is not there or not readable.
        """

    def read(self, item: Item) -> RawSample:
        """One item.

        Raises:
            SampleError: this item cannot be read; the others can.
        """


@runtime_checkable
class BatchSource(Source, Protocol):
    """A corpus that reads many items in less time than one by one."""

    def read_many(self, items: Sequence[Item]) -> Sequence[Reading]:
        """The items' samples, or what kept each from being read, in their order.

        Raises:
            SourceError: nothing at all can be read.
        """


@runtime_checkable
class FarSource(Source, Protocol):
    """A corpus with depth beyond the 32 metres that are kept at half a millimetre."""

    @property
    def farthest(self) -> float:
        """Metres of the largest `truth_depth`."""


@runtime_checkable
class LargeSource(Source, Protocol):
    """A corpus of samples so large that few of them are a shard, which is held in memory."""

    @property
    def most_in_shard(self) -> int:
        """Samples of one shard."""


def read_alone(source: BatchSource, item: Item) -> RawSample:
    """One item of a corpus that reads many at once.

    Raises:
        SampleError: what kept it from being read.
    """
    (reading,) = source.read_many([item])
    if isinstance(reading, SampleError):
        raise reading
    return reading


def read_all(source: Source, items: Sequence[Item]) -> Sequence[Reading]:
    """The items' samples, or what kept each from being read, in their order."""
    if isinstance(source, BatchSource):
        return source.read_many(items)
    return [_read(source, each) for each in items]


def _read(source: Source, item: Item) -> Reading:
    try:
        return source.read(item)
    except SampleError as error:
        return error
