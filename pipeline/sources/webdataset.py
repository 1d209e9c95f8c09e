"""WebDataset tars, as img2dataset and others write them: `<key>.jpg`, `<key>.txt`, `<key>.json`."""

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fourmill.manifests.errors import SampleError
from fourmill.manifests.modalities import Modality
from fourmill.pipeline.sources.base import Item, RawSample, Reading, read_alone
from fourmill.pipeline.sources.beside import endings, read_labels
from fourmill.pipeline.sources.files import find_files, open_place
from fourmill.pipeline.sources.origin import caption_of, origin_of

IMAGES = ("jpg", "jpeg", "png", "webp")
_READ = (*IMAGES, "txt", "json")

Members = dict[str, tuple[int, int]]
"""(offset, size) in a tar by extension."""


@dataclass(frozen=True)
class WebDatasetSource:
    """One tar, or a folder or glob of tars (any fsspec URL).

    Where img2dataset left its parquet beside a tar, that lists the tar's samples, and the tar is
    not opened before it is read. A half-written tar gives the samples before the damage; the damage
    itself is one failed item.

    Attributes:
        labels: modalities whose labels are members too, `<key>.thermal.npy`; see `beside`.
    """

    path: str
    labels: Sequence[Modality] = ()
    name: str = "webdataset"

    @property
    def params(self) -> Mapping[str, Any]:
        """Where the tars are."""
        labels = {"labels": list(self.label_modalities)} if self.labels else {}
        return {"path": self.path, **labels}

    @property
    def label_modalities(self) -> Sequence[str]:
        """Those whose labels are in the tars."""
        return [each.name for each in self.labels]

    def listing(self) -> list[Item]:
        """One item a sample, from the parquet beside a tar or from the tar's headers."""
        fs, _ = open_place(self.path)
        items: list[Item] = []
        for tar, label in find_files(self.path, ".tar"):
            keys = _keys_beside(fs, tar)
            if keys is not None:
                items += [Item(f"{label}/{k}", "train", (tar, None, k), label) for k in keys]
                continue
            groups, damage = read_members(fs, tar)
            items += [
                Item(f"{label}/{key}", "train", (tar, members, key), label)
                for key, members in groups.items()
                if any(each in members for each in IMAGES)
            ]
            if damage:
                items.append(Item(f"{label}.tar", "train", (tar, damage, ""), label))
        return items

    def read(self, item: Item) -> RawSample:
        """The image and its text: `.txt`, or the caption in `.json`."""
        return read_alone(self, item)

    def read_many(self, items: Sequence[Item]) -> list[Reading]:
        """The images and texts; each tar is opened once and read from front to back."""
        fs, _ = open_place(self.path)
        readings: dict[str, Reading] = {}
        ordered = sorted(items, key=lambda each: str(each.where[0]))
        for tar, members in groupby(ordered, key=lambda each: each.where[0]):
            readings |= self._read_tar(fs, tar, list(members))
        return [readings[each.name] for each in items]

    def _read_tar(self, fs: Any, tar: str, items: Sequence[Item]) -> dict[str, Reading]:
        readings: dict[str, Reading] = {}
        places: list[tuple[int, Item, Members]] = []
        try:
            with fs.open(tar, "rb") as stream:
                for item in items:
                    try:
                        members = _members_of(self.path, item)
                        places.append((min(members.values())[0], item, members))
                    except SampleError as error:
                        readings[item.name] = error
                for _, item, members in sorted(places, key=lambda each: each[0]):
                    try:
                        readings[item.name] = self._sample(stream, item, members)
                    except SampleError as error:
                        readings[item.name] = error
        except OSError as error:
            for item in items:
                readings.setdefault(item.name, SampleError("read", f"{item.name}: {error}"))
        return readings

    def _sample(self, stream: Any, item: Item, members: Members) -> RawSample:
        data = {}
        of_labels = [ending[1:].lower() for each in self.labels for ending in endings(each)]
        read = (*_READ, *of_labels)
        wanted = {name: place for name, place in members.items() if name in read}
        for extension, (offset, size) in sorted(wanted.items(), key=lambda each: each[1]):
            stream.seek(offset)
            data[extension] = stream.read(size)
        image = next((data[each] for each in IMAGES if each in data), None)
        if image is None:
            raise SampleError("read", f"{item.name}: the tar holds no image of it")
        record = _json_record(data.get("json"), item.name)
        text = {"caption": data["txt"].decode("utf-8", "replace")} if "txt" in data else record
        source = {"file": item.name, "dataset": self.name, **origin_of(record)}

        def find(ending: str) -> tuple[str, bytes] | None:
            found = data.get(ending[1:].lower())  # names of members are kept in lower case
            return None if found is None else (f"{item.name}{ending}", found)

        return RawSample(image, caption_of(text), read_labels(self.labels, find, image), source)


def read_members(fs: Any, tar: str) -> tuple[dict[str, Members], str]:
    """The members of a tar by key, and what is wrong with it, if anything."""
    groups: dict[str, Members] = {}
    with fs.open(tar, "rb") as stream:
        size = fs.size(tar)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    folder, _, base = member.name.rpartition("/")
                    stem, _, extension = base.partition(".")
                    if member.offset_data + member.size > size:
                        return groups, f"ends in the middle of {member.name}"
                    span = (member.offset_data, member.size)
                    key = f"{folder}/{stem}".lstrip("/")
                    groups.setdefault(key, {})[extension.lower()] = span
        except tarfile.TarError as error:
            return groups, str(error)
    return groups, ""


def _members_of(path: str, item: Item) -> Members:
    tar, members, key = item.where
    if isinstance(members, str):
        raise SampleError("read", f"{tar}: damaged tar: {members}; what comes before is kept")
    found: Members | None = members if members is not None else _index(path, tar).get(key)
    if not found:
        raise SampleError("read", f"{item.name}: the tar does not hold it, the list beside it does")
    return found


@lru_cache(maxsize=2)  # items of one tar are read together
def _index(path: str, tar: str) -> dict[str, Members]:
    return read_members(open_place(path)[0], tar)[0]


def _keys_beside(fs: Any, tar: str) -> list[str] | None:
    """Keys of the samples that img2dataset put into a tar; `None` where it left no list."""
    try:
        with fs.open(f"{tar.removesuffix('.tar')}.parquet", "rb") as stream:
            table = pq.read_table(stream, columns=["key", "status"])
    except (OSError, ValueError, pa.ArrowException):
        return None
    if table.column_names != ["key", "status"]:
        return None
    rows = zip(*(each.to_pylist() for each in table.columns), strict=True)
    return [str(key) for key, status in rows if status == "success"]


def _json_record(data: bytes | None, name: str) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        record = json.loads(data)
    except ValueError as error:
        raise SampleError("read", f"{name}.json: {error}") from error
    return record if isinstance(record, dict) else {}
