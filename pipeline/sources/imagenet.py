"""ImageNet-1K (Russakovsky et al. 2015): photographs of a thousand classes."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.manifests.labels import Label
from fourmill.pipeline.sources.base import Item, RawSample
from fourmill.pipeline.sources.files import open_place
from fourmill.pipeline.sources.matlab import read_matlab
from fourmill.pipeline.sources.originals import files_below, read_file, read_table, split_folders

SPLITS = ("train", "val")
SYNSETS = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
BELOW = ("", "ILSVRC/Data/CLS-LOC/")
DEVKIT = ("", "ILSVRC2012_devkit_t12/data/", "data/")
LAYOUT = (
    "ImageNet-1K lies as train/n01440764/*.JPEG and val/n01440764/*.JPEG, or with the photographs "
    f"of val in one folder beside {SOLUTION} or {TRUTH} (of the devkit, with its {META})"
)
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class ImageNetSource:
    """The folder that holds `train/` or `val/`, itself or in `ILSVRC/Data/CLS-LOC/`.

    Args:
        split: the only one that is read.
    """

    path: str
    split: str = ""
    name: str = "imagenet"
    label_modalities: Sequence[str] = ("truth_imagenet",)

    @property
    def params(self) -> Mapping[str, Any]:
        """Where it lies, and what of it is read."""
        return {"path": self.path, "split": self.split}

    def listing(self) -> list[Item]:
        """One item a photograph, by relative path."""
        fs, root = open_place(self.path)
        below = next((each for each in BELOW if fs.isdir(f"{root}/{each}val")), "")
        below = below or next((each for each in BELOW if fs.isdir(f"{root}/{each}train")), "")
        places = {each: f"{below}{each}" for each in SPLITS}
        synsets = _synsets(fs, root)
        items: list[Item] = []
        for split, folder in split_folders(fs, root, places, self.split, LAYOUT).items():
            files = files_below(fs, folder, ".jpeg")
            of_folder = {file: file.split("/")[-2] for file in files}
            flat = [file for file, above in of_folder.items() if not _WNID.fullmatch(above)]
            known = _flat_classes(fs, root) if flat else {}
            for file, above in of_folder.items():
                stem = file.rsplit("/", 1)[-1].rpartition(".")[0]
                wnid = above if _WNID.fullmatch(above) else known.get(stem, "")
                label = synsets.get(wnid, (-1, ""))
                items.append(Item(file.removeprefix(f"{root}/"), split, (file, wnid, *label)))
        if not items:
            raise SourceError(f"{self.path}: no *.JPEG in it; {LAYOUT}")
        return items

    def read(self, item: Item) -> RawSample:
        """The photograph and its class."""
        fs, _ = open_place(self.path)
        file, wnid, number, name = item.where
        image = read_file(fs, file)
        label: Label | SampleError = [
            {"class_name": name, "index": number, "wnid": wnid, "score": 1.0}
        ]
        if number < 0:
            what = (
                f"{wnid!r} is none of the thousand classes" if wnid else "nothing tells its class"
            )
            label = SampleError("truth_imagenet", f"{item.name}: {what}")
        source = {"file": item.name, "dataset": self.name}
        return RawSample(image, labels={"truth_imagenet": label}, source=source)


def _synsets(fs: Any, root: str) -> dict[str, tuple[int, str]]:
    """Index and name of each class, by WordNet id: from the file of the set, or timm's.

    The name is the first word; two cranes and two maillots have their ids behind it.
    """
    if fs.isfile(f"{root}/{SYNSETS}"):
        lines = read_table(fs, f"{root}/{SYNSETS}").decode("utf-8", "replace").splitlines()
        pairs = [line.strip().partition(" ")[::2] for line in lines if line.strip()]
        wrong = [wnid for wnid, words in pairs if not (_WNID.fullmatch(wnid) and words)]
        if wrong:
            raise SourceError(f"{root}/{SYNSETS}: {wrong[0]!r}, expected `n01440764 tench, …`")
    else:
        from timm.data.imagenet_info import ImageNetInfo

        info: Any = ImageNetInfo()
        wnids = info.label_names()
        pairs = [(each, info.index_to_description(row)) for row, each in enumerate(wnids)]
    names = [words.partition(",")[0].strip() for _, words in pairs]
    several = {name for name, count in Counter(names).items() if count > 1}
    return {
        wnid: (row, f"{name} ({wnid})" if name in several else name)
        for row, ((wnid, _), name) in enumerate(zip(pairs, names, strict=True))
    }


def _flat_classes(fs: Any, root: str) -> dict[str, str]:
    """WordNet id by name without suffix, of photographs that lie in one folder."""
    if fs.isfile(f"{root}/{SOLUTION}"):
        text = read_table(fs, f"{root}/{SOLUTION}").decode("utf-8", "replace")
        rows = [row for row in csv.reader(io.StringIO(text)) if len(row) == 2]
        return {image: boxes.split()[0] for image, boxes in rows if _WNID.match(boxes)}
    folder = next((f"{root}/{each}" for each in DEVKIT if fs.isfile(f"{root}/{each}{TRUTH}")), "")
    if not folder:
        raise SourceError(f"{root}: neither {SOLUTION} nor {TRUTH} tells the classes; {LAYOUT}")
    if not fs.isfile(f"{folder}{META}"):
        raise SourceError(
            f"{folder}{TRUTH} counts classes in an order of its own, which {META} of the devkit "
            f"beside it tells: there is none"
        )
    ids = read_matlab(fs, f"{folder}{META}", ["synsets"])["synsets"]
    try:
        wnids = {int(each["ILSVRC2012_ID"].item()): str(each["WNID"].item()) for each in ids.flat}
        lines = read_table(fs, f"{folder}{TRUTH}").split()
        return {
            f"ILSVRC2012_val_{row:08d}": wnids[int(line)] for row, line in enumerate(lines, start=1)
        }
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{folder}{TRUTH}: not as the devkit has it: {error!r}") from error
