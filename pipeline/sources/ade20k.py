"""ADE20K as the scene parsing benchmark has it (Zhou et al. 2017): 150 classes a pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourmill.manifests.errors import SourceError
from fourmill.manifests.images import read_png
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import modality
from fourmill.pipeline.sources.base import Item, RawSample
from fourmill.pipeline.sources.beside import checked
from fourmill.pipeline.sources.files import open_place
from fourmill.pipeline.sources.originals import files_below, read_file, split_folders

SPLITS = {"train": "training", "val": "validation"}
LAYOUT = (
    "ADE20K's benchmark (ADEChallengeData2016) lies as images/validation/ADE_val_00000001.jpg and "
    "annotations/validation/ADE_val_00000001.png"
)


@dataclass(frozen=True)
class Ade20kSource:
    """The folder that holds `images/` and `annotations/`.

    Args:
        split: the only one that is read.
    """

    path: str
    split: str = ""
    name: str = "ade20k"
    label_modalities: Sequence[str] = ("truth_semseg_ade20k",)

    @property
    def params(self) -> Mapping[str, Any]:
        """Where it lies, and what of it is read."""
        return {"path": self.path, "split": self.split}

    def listing(self) -> list[Item]:
        """One item a photograph, by relative path."""
        fs, root = open_place(self.path)
        images = {name: f"images/{each}" for name, each in SPLITS.items()}
        folders = split_folders(fs, root, images, self.split, LAYOUT)
        items = [
            Item(file.removeprefix(f"{root}/"), split, where=file)
            for split, folder in folders.items()
            for file in files_below(fs, folder, ".jpg")
        ]
        if not items:
            raise SourceError(
                f"{self.path}: no *.jpg below {', '.join(folders.values())}; {LAYOUT}"
            )
        return items

    def read(self, item: Item) -> RawSample:
        """The photograph and its classes, or what is wrong with them."""
        fs, root = open_place(self.path)
        image = read_file(fs, item.where)
        stem = item.name.removeprefix("images/").rpartition(".")[0]

        def classes() -> Label:
            numbers = read_png(read_file(fs, f"{root}/annotations/{stem}.png"))
            # 0 is everything else and the first class is 1; in a byte, 0 - 1 is 255, our unknown
            return np.asarray(numbers - np.uint8(1))

        label = checked(modality("truth_semseg_ade20k"), item.name, image, classes)
        source = {"file": item.name, "dataset": self.name}
        return RawSample(image, labels={"truth_semseg_ade20k": label}, source=source)
