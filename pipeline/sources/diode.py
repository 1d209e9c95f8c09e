"""DIODE (Vasiljevic et al. 2019): photographs with measured depth and surface normals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.errors import SampleError, SourceError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import modality
from fourmill.manifests.npy import decode_npy
from fourmill.pipeline.sources.base import Item, RawSample
from fourmill.pipeline.sources.beside import checked
from fourmill.pipeline.sources.files import open_place
from fourmill.pipeline.sources.originals import files_below, read_file, split_folders

SPLITS = ("train", "val", "test")
PARTS = ("indoors", "outdoor")
FARTHEST = 350.0  # metres that the scanner reaches; what is farther is no measurement
ENDINGS = {"truth_depth": "_depth.npy", "truth_normal": "_normal.npy"}
LAYOUT = (
    "DIODE lies as val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png, with "
    "…_depth.npy, …_depth_mask.npy and …_normal.npy beside it"
)
_SHORTEST = 0.5  # length of a vector that is one: those that are not known are zero


@dataclass
class DiodeSource:
    """The folder that holds `val/` or `train/`.

    Args:
        split: the only one that is read.
        part: `indoors` or `outdoor`, the only one that is read.
    """

    path: str
    split: str = ""
    part: str = ""
    name: str = "diode"
    label_modalities: Sequence[str] = field(default=(), init=False)
    farthest: ClassVar[float] = FARTHEST
    most_in_shard: ClassVar[int] = 100  # of about 7 MB each

    @property
    def params(self) -> Mapping[str, Any]:
        """Where it lies, and what of it is read."""
        return {"path": self.path, "split": self.split, "part": self.part}

    def listing(self) -> list[Item]:
        """One item a photograph, by relative path."""
        fs, root = open_place(self.path)
        items: list[Item] = []
        have: set[str] = set()
        folders = split_folders(fs, root, {each: each for each in SPLITS}, self.split, LAYOUT)
        for split, folder in folders.items():
            files = files_below(fs, f"{folder}/{self.part}".rstrip("/"))
            have |= {name for name, end in ENDINGS.items() if any(f.endswith(end) for f in files)}
            items += [
                Item(file.removeprefix(f"{root}/"), split, where=file.removesuffix(".png"))
                for file in files
                if file.endswith(".png")
            ]
        self.label_modalities = sorted(have)
        if not items or not have:
            what = f"neither {' nor '.join(ENDINGS.values())}" if items else "no photograph"
            raise SourceError(f"{self.path}: {what} below {', '.join(folders.values())}; {LAYOUT}")
        return items

    def read(self, item: Item) -> RawSample:
        """The photograph, and its labels or what is wrong with them."""
        fs, _ = open_place(self.path)
        stem: str = item.where
        image = read_file(fs, f"{stem}.png")
        readers: Mapping[str, Callable[[Any, str], Label]] = {
            "truth_depth": _read_depth, "truth_normal": _read_normal,
        }  # fmt: skip
        labels: dict[str, Label | SampleError] = {
            each: checked(modality(each), item.name, image, partial(readers[each], fs, stem))
            for each in self.label_modalities
        }
        part = next((each for each in PARTS if f"/{each}/" in f"/{item.name}"), "")
        source = {"file": item.name, "dataset": self.name, "scene": part}
        return RawSample(image, labels=labels, source=source)


def _read_depth(fs: Any, stem: str) -> NDArray[np.float32]:
    depth = _numbers(fs, f"{stem}_depth.npy", "f")
    mask = _numbers(fs, f"{stem}_depth_mask.npy", "fbiu")
    if depth.shape != mask.shape:
        raise ValueError(f"depth of shape {depth.shape}, its mask of {mask.shape}")
    with np.errstate(invalid="ignore"):
        is_known = (mask > 0) & (depth > 0) & (depth <= FARTHEST)
    return np.asarray(np.where(is_known, depth, 0), np.float32)


def _read_normal(fs: Any, stem: str) -> NDArray[np.uint8]:
    vectors = _numbers(fs, f"{stem}_normal.npy", "f").astype(np.float32)
    if vectors.ndim != 3 or vectors.shape[2] != 3:
        raise ValueError(f"found shape {list(vectors.shape)}, expected [H, W, 3]")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
        is_known = (lengths > _SHORTEST) & np.isfinite(lengths)
        units = np.where(is_known, vectors / lengths, 0)
    # its axes are ours: x right, y up, z to the viewer
    return np.asarray(np.rint(127.5 * (units + 1)), np.uint8)


def _numbers(fs: Any, file: str, kinds: str) -> NDArray[Any]:
    """An array, `[H, W, 1]` as `[H, W]`."""
    array = decode_npy(read_file(fs, file))
    if array.dtype.kind not in kinds or array.ndim < 2:
        raise ValueError(f"found {array.dtype} {list(array.shape)} in {file.rsplit('/', 1)[-1]}")
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
