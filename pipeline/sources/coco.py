"""COCO 2017 (Lin et al. 2014): photographs with boxes, outlines, captions and panoptic maps."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.class_names import COCO_PANOPTIC
from fourmill.manifests.errors import SampleError, SourceError
from fourmill.manifests.images import read_png
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.labels import Label, image_size
from fourmill.manifests.modalities import modality
from fourmill.pipeline.sources.base import Item, RawSample
from fourmill.pipeline.sources.beside import checked
from fourmill.pipeline.sources.files import open_place
from fourmill.pipeline.sources.formats import as_supported
from fourmill.pipeline.sources.origin import caption_of, origin_of
from fourmill.pipeline.sources.originals import read_file, read_table, split_folders

SPLITS = {"train": "train2017", "val": "val2017"}
LABELS = {
    "instances": ("truth_det", "truth_instances"),
    "captions": ("truth_captions",),
    "panoptic": ("truth_semseg_coco",),
}
"""What each file of annotations gives."""

LAYOUT = (
    "COCO lies as val2017/000000000139.jpg with annotations/instances_val2017.json, "
    "annotations/captions_val2017.json and annotations/panoptic_val2017.json, beside which is "
    "panoptic_val2017/000000000139.png; one of the three is enough"
)
_UNEXPECTED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
_Record = dict[str, Any]


@dataclass
class CocoSource:
    """The folder that holds `annotations/` and `val2017/` or `train2017/`.

    A split is read if its photographs are there. Annotations are read once, by the listing: what
    they say of a photograph travels with its item.

    Args:
        split: the only one that is read.
    """

    path: str
    split: str = ""
    name: str = "coco"
    label_modalities: Sequence[str] = field(default=(), init=False)
    most_in_shard: ClassVar[int] = 500  # of about a megabyte each
    _sha256: Mapping[str, str] = field(default_factory=dict, init=False)

    @property
    def params(self) -> Mapping[str, Any]:
        """Where it lies, what of it is read, and the hashes of the annotations."""
        return {"path": self.path, "split": self.split, "annotations": dict(self._sha256)}

    def listing(self) -> list[Item]:
        """One item a photograph that any of the annotations list, by relative path."""
        fs, root = open_place(self.path)
        items: list[Item] = []
        found: set[str] = set()
        digests: dict[str, str] = {}
        for split in split_folders(fs, root, SPLITS, self.split, LAYOUT):
            records: dict[int, _Record] = {}
            for kind, names in LABELS.items():
                file = f"{root}/annotations/{kind}_{SPLITS[split]}.json"
                if fs.isfile(file):
                    data = read_table(fs, file)
                    digests[f"{kind}_{split}"] = hashlib.sha256(data).hexdigest()
                    _gather(records, kind, data, file)
                    found |= {*names}
            items += [
                Item(f"{SPLITS[split]}/{record['file']}", split, where=_packed(record))
                for _, record in sorted(records.items())
            ]
        if not items:
            raise SourceError(f"{self.path}: no annotations of the photographs there; {LAYOUT}")
        self.label_modalities, self._sha256 = sorted(found), digests
        return items

    def read(self, item: Item) -> RawSample:
        """The photograph, its first caption, and its labels or what is wrong with them."""
        fs, root = open_place(self.path)
        record: _Record = json.loads(item.where)
        image = read_file(fs, f"{root}/{item.name}")
        folder = f"{root}/annotations/panoptic_{SPLITS[item.split]}"
        readers: dict[str, Callable[[], Label]] = {}
        if "instances" in record:
            readers |= {
                "truth_det": lambda: _boxes(record["instances"], _size(record, image)),
                "truth_instances": lambda: _outlines(record["instances"], _size(record, image)),
            }
        if record.get("captions"):
            readers["truth_captions"] = lambda: [" ".join(e.split()) for e in record["captions"]]
        if "panoptic" in record:
            readers["truth_semseg_coco"] = lambda: _classes(
                read_png(read_file(fs, f"{folder}/{record['panoptic']['file']}")),
                record["panoptic"]["segments"],
            )
        labels = {
            each: checked(modality(each), item.name, image, _told(read))
            for each, read in readers.items()
        }
        source = {"file": item.name, "dataset": self.name, **origin_of(record["origin"])}
        return RawSample(image, caption_of(record), labels, source)


def _gather(records: dict[int, _Record], kind: str, data: bytes, file: str) -> None:
    """Add what one file says of each photograph.

    Raises:
        SourceError: it is no such file.
    """
    try:
        loaded = json.loads(data)
        licences = {each["id"]: each for each in loaded.get("licenses", ())}
        for each in loaded["images"]:
            licence = licences.get(each.get("license"), {})
            origin = {
                "url": each.get("coco_url"), "licence": licence.get("name"),
                "licence_url": licence.get("url"),
            }  # fmt: skip
            sides = {"height": each["height"], "width": each["width"]}
            new = {"file": _plain(each["file_name"]), "origin": origin, **sides}
            record = records.setdefault(each["id"], new)
            if kind != "panoptic":
                record[kind] = []
        names = {each["id"]: each["name"] for each in loaded.get("categories", ())}
        strange = {*names.values()} - {*COCO_PANOPTIC}
        if strange:
            raise SourceError(f"{file}: {min(strange)!r} is no category of COCO 2017")
        for each in loaded["annotations"]:
            record = records[each["image_id"]]
            if kind == "captions":
                record[kind].append(each["caption"])
            elif kind == "instances":
                thing = {key: each.get(key) for key in ("bbox", "area", "segmentation", "iscrowd")}
                record[kind].append({"name": names[each["category_id"]], **thing})
            else:
                segments = [
                    (part["id"], COCO_PANOPTIC.index(names[part["category_id"]]))
                    for part in each["segments_info"]
                ]
                record[kind] = {"file": _plain(each["file_name"]), "segments": segments}
    except _UNEXPECTED as error:
        raise SourceError(
            f"{file}: not a file of annotations as COCO has them: {type(error).__name__}: {error}"
        ) from error


def _plain(name: str) -> str:
    """The name of a file in a folder, and of none elsewhere."""
    if not name or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _packed(record: _Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def _told(read: Callable[[], Label]) -> Callable[[], Label]:
    """`read`, and an annotation that is not of the expected form as a ValueError."""

    def reading() -> Label:
        try:
            return read()
        except (KeyError, TypeError) as error:
            raise ValueError(f"the annotation is odd: {type(error).__name__}: {error}") from error

    return reading


def _size(record: _Record, image: bytes) -> tuple[int, int]:
    """(height, width) of the photograph, which the annotations speak of."""
    found, expected = image_size(as_supported(image)), (record["height"], record["width"])
    if found != expected:
        raise SampleError("det", f"annotated for {expected} pixels, the photograph has {found}")
    return found


def _boxes(things: Sequence[_Record], size: tuple[int, int]) -> dict[str, Any]:
    """A `det` label of all but crowds, which are apart."""
    height, width = size
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for each in things:
        x, y, w, h = map(float, each["bbox"])
        corners = np.array([x / width, y / height, (x + w) / width, (y + h) / height])
        box = [round(corner, 6) for corner in corners.clip(0, 1).tolist()]
        one = {"boxes": box, "class_name": each["name"], "score": 1.0}
        found[bool(each["iscrowd"])].append(one)
    return {"instances": found[False]} | ({"crowds": found[True]} if found[True] else {})


def _outlines(things: Sequence[_Record], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Places by the number of the box, from 1; what is smaller lies in front."""
    from skimage import draw

    inside: Any = draw.polygon
    plane = np.zeros(size, np.uint16)
    single = [each for each in things if not each["iscrowd"]]
    numbered = sorted(enumerate(single, start=1), key=lambda each: -float(each[1]["area"]))
    for number, each in numbered:
        if not isinstance(each["segmentation"], list):
            raise ValueError("the outline of a single thing is no polygon")
        for ring in each["segmentation"]:
            x, y = np.array(ring, np.float64).reshape(-1, 2).T
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                raise ValueError("an outline has corners that are not finite")
            # a pixel is inside if its centre is
            plane[inside(y - 0.5, x - 0.5, size)] = number
    return plane


def _classes(colours: NDArray[Any], segments: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """Classes of a panoptic map, whose colours are the numbers of the segments."""
    if colours.ndim != 3:
        raise ValueError("found a grey map, expected the numbers of segments as colours")
    numbers = colours.astype(np.int64) @ np.array([1, 2**8, 2**16])
    found, places = np.unique(numbers, return_inverse=True)
    table = dict(segments)
    classes = [table.get(each, UNKNOWN_CLASS) for each in found.tolist()]
    return np.array(classes, np.uint8)[places.reshape(numbers.shape)]
