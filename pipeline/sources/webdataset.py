"""WebDataset tars, as img2dataset and others write them: `<key>.jpg`, `<key>.txt`, `<key>.json`."""

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.pipeline.sources.base import Item, RawSample

IMAGES = ("jpg", "jpeg", "png", "webp")
SOURCE_FIELDS = ("url", "title", "licence", "license", "creator")


@dataclass(frozen=True)
class WebDatasetSource:
    """One tar, or a folder or glob of tars (any fsspec URL).

    A half-written tar gives the samples before the damage; the damage itself is one failed item.
    """

    path: str
    name: str = "webdataset"
    label_modalities: Sequence[str] = ()

    @property
    def params(self) -> Mapping[str, Any]:
        """Where the tars are."""
        return {"path": self.path}

    def listing(self) -> list[Item]:
        """One item a sample; reads the tars' headers once."""
        fs, root = fsspec.core.url_to_fs(self.path)
        tars = [root] if fs.isfile(root) else sorted(map(str, fs.glob(root)))
        if fs.isdir(root):
            tars = sorted(each for each in map(str, fs.find(root)) if each.endswith(".tar"))
        if not tars:
            raise SourceError(f"{self.path}: no tar there")
        items = []
        for tar in tars:
            items.extend(self._tar_items(fs, tar))
        return items

    def _tar_items(self, fs: Any, tar: str) -> list[Item]:
        groups: dict[str, dict[str, tuple[int, int]]] = {}
        damage = None
        label = tar.rsplit("/", 1)[-1].removesuffix(".tar")
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
                            damage = f"ends in the middle of {member.name}"
                            break
                        span = (member.offset_data, member.size)
                        groups.setdefault(f"{folder}/{stem}".lstrip("/"), {})[extension.lower()] = (
                            span
                        )
            except tarfile.TarError as error:
                damage = str(error)
        items = [
            Item(f"{label}/{key}", where=(tar, members))
            for key, members in groups.items()
            if any(each in members for each in IMAGES)
        ]
        if damage is not None:
            items.append(Item(f"{label}.tar", where=(tar, damage)))
        return items

    def read(self, item: Item) -> RawSample:
        """The image and its text: `.txt`, or `caption` of `.json`."""
        tar, members = item.where
        if isinstance(members, str):
            raise SampleError("read", f"{tar}: damaged tar: {members}; what comes before is kept")
        fs, _ = fsspec.core.url_to_fs(self.path)
        with fs.open(tar, "rb") as stream:
            data = {}
            for extension in (*IMAGES, "txt", "json"):
                if extension in members:
                    offset, size = members[extension]
                    stream.seek(offset)
                    data[extension] = stream.read(size)
        image = next(data[each] for each in IMAGES if each in data)
        record = _json_record(data.get("json"), item.name)
        caption = data["txt"].decode("utf-8", "replace") if "txt" in data else record.get("caption")
        caption = " ".join(caption.split()) if isinstance(caption, str) else None
        origin = {k: str(record[k]) for k in SOURCE_FIELDS if record.get(k)}
        return RawSample(
            image, caption or None, source={"file": item.name, "dataset": self.name, **origin}
        )


def _json_record(data: bytes | None, name: str) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        record = json.loads(data)
    except ValueError as error:
        raise SampleError("read", f"{name}.json: {error}") from error
    return record if isinstance(record, dict) else {}
