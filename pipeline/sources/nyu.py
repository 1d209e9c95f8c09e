"""NYUv2 (Silberman et al. 2012): rooms with depth, and what stands where in 894 words."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests.class_names import NYU40
from fourmill.manifests.errors import SampleError, SourceError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import modality
from fourmill.pipeline.corpora.encoding import boxes
from fourmill.pipeline.sources.base import Item, RawSample, Reading, read_alone
from fourmill.pipeline.sources.beside import checked
from fourmill.pipeline.sources.files import open_place
from fourmill.pipeline.sources.matlab import array_of, open_hdf5, read_matlab, words_of

FILE = "nyu_depth_v2_labeled.mat"
SPLIT_FILE = "splits.mat"
MAPPING_FILE = "classMapping40.mat"
SPLITS = {"train": "trainNdxs", "test": "testNdxs"}
LAYOUT = (
    f"NYUv2 is one file, {FILE}, beside which {SPLIT_FILE} and {MAPPING_FILE} may lie; or give the "
    f"path of the file itself"
)
_MOST = 100_000  # pictures; the set has 1449
_TOGETHER = 16  # pictures that a worker reads while the file is open
_ARRAYS = {"images": ("u1", 4), "depths": ("f4", 3), "labels": ("u2", 3), "instances": ("u1", 3)}


@dataclass
class NyuSource:
    """The labelled part: the folder with the MATLAB file, or the file.

    Depth is the one whose holes were filled. The 40 classes need the mapping file, the official
    split needs its own; without it samples are held out as of any corpus.

    Args:
        split: the only one that is read.
    """

    path: str
    split: str = ""
    name: str = "nyu"
    label_modalities: Sequence[str] = field(default=(), init=False)
    most_in_shard: ClassVar[int] = 200  # of about 3 MB each

    @property
    def params(self) -> Mapping[str, Any]:
        """Where it lies, and what of it is read."""
        return {"path": self.path, "split": self.split}

    def listing(self) -> list[Item]:
        """One item a picture, by its number from 1, sixteen of one split in a group."""
        with _opened(self.path) as arrays:
            count = len(arrays["images"])
        _words(self.path)
        splits = _splits(self.path)
        if self.split and not splits:
            raise SourceError(f"{self.path}: no {SPLIT_FILE} that says which are {self.split}")
        words = ["truth_depth", "truth_instances", "truth_det"]
        self.label_modalities = words + ["truth_semseg_nyu40"] * (_mapping(self.path) is not None)
        items = []
        for split in [self.split] if self.split else [*SPLITS]:
            places = splits[split] if splits else range(count if split == "train" else 0)
            if any(not 0 <= each < count for each in places):
                raise SourceError(f"{self.path}: {SPLIT_FILE} names pictures beyond the {count}")
            items += [
                Item(f"{place + 1:04d}", split, place, f"{split}-{number // _TOGETHER}")
                for number, place in enumerate(sorted({*places}))
            ]
        return items

    def read(self, item: Item) -> RawSample:
        """One picture with its labels."""
        return read_alone(self, item)

    def read_many(self, items: Sequence[Item]) -> list[Reading]:
        """The pictures with their labels, in one opening of the file."""
        readings: list[Reading] = []
        with _opened(self.path) as arrays:
            for item in items:
                try:
                    readings.append(self._sample(arrays, item))
                except (OSError, ValueError) as error:  # a chunk that cannot be decompressed
                    readings.append(SampleError("read", f"{item.name}: {error}"))
        return readings

    def _sample(self, arrays: Mapping[str, Any], item: Item) -> RawSample:
        place: int = item.where
        buffer = io.BytesIO()
        Image.fromarray(_upright(arrays["images"][place])).save(buffer, "PNG")
        image = buffer.getvalue()

        def depth() -> Label:
            metres = _part(arrays, "depths", place)
            return np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float32)

        @cache
        def things() -> tuple[NDArray[np.uint16], list[str]]:
            numbers = _part(arrays, "instances", place)
            return _things(_part(arrays, "labels", place), numbers, words)

        def classes() -> Label:
            table = _mapping(self.path)
            assert table is not None
            return _looked_up(table, _part(arrays, "labels", place))

        words = _words(self.path)
        readers = {
            "truth_depth": depth, "truth_semseg_nyu40": classes,
            "truth_instances": lambda: things()[0], "truth_det": lambda: boxes(*things()),
        }  # fmt: skip
        labels = {
            each: checked(modality(each), item.name, image, readers[each])
            for each in self.label_modalities
        }
        return RawSample(image, labels=labels, source={"file": item.name, "dataset": self.name})


def _things(
    words: NDArray[Any], numbers: NDArray[Any], names: Sequence[str]
) -> tuple[NDArray[np.uint16], list[str]]:
    """Instances from 1 on, by word and then by number, and the word of each."""
    both = words.astype(np.int64) * 256 + numbers
    both[(words == 0) | (numbers == 0)] = 0
    found, places = np.unique(both, return_inverse=True)
    wrong = found[found // 256 > len(names)]
    if wrong.size:
        raise ValueError(f"found word {int(wrong[0]) // 256}, there are {len(names)}")
    first = int(found[0] != 0)  # if everything is labelled, there is no zero
    things = (places.reshape(both.shape) + first).astype(np.uint16)
    return things, [names[each // 256 - 1] for each in found.tolist() if each]


def _looked_up(table: NDArray[np.uint8], words: NDArray[Any]) -> NDArray[np.uint8]:
    if int(words.max()) >= len(table):
        raise ValueError(f"found word {int(words.max())}, {MAPPING_FILE} has {len(table) - 1}")
    return np.asarray(table[words])


def _part(arrays: Mapping[str, Any], name: str, place: int) -> NDArray[Any]:
    try:
        return _upright(arrays[name][place])
    except OSError as error:
        raise SampleError(name, f"{name}: {error}") from error


def _upright(array: NDArray[Any]) -> NDArray[Any]:
    """`[H, W]` or `[H, W, 3]` of what MATLAB, whose first axis varies fastest, wrote."""
    return np.ascontiguousarray(array.T)


@contextmanager
def _opened(path: str) -> Iterator[dict[str, Any]]:
    """The arrays in the file.

    Raises:
        SourceError: no such file, or not what it should be.
    """
    with _file(path) as file:
        arrays = {name: array_of(file, name, *each) for name, each in _ARRAYS.items()}
        count, *sides = arrays["depths"].shape
        expected = dict.fromkeys(arrays, (count, *sides)) | {"images": (count, 3, *sides)}
        if count > _MOST:
            raise SourceError(f"{path}: says {count:,} pictures, expected at most {_MOST:,}")
        for name, each in arrays.items():
            if each.shape != expected[name]:
                raise SourceError(
                    f"{path}: {name} has the shape {each.shape}, expected {expected[name]}"
                )
        yield arrays


@contextmanager
def _file(path: str) -> Iterator[Any]:
    fs, place = _place(path, FILE)
    if not fs.isfile(place):
        raise SourceError(f"{path}: no {FILE} there; {LAYOUT}")
    with open_hdf5(fs, place, "nyu") as file:
        yield file


@lru_cache(maxsize=2)  # once a worker
def _words(path: str) -> list[str]:
    """The 894 words, the first of which is number 1."""
    with _file(path) as file:
        return words_of(file, "names")


@lru_cache(maxsize=2)
def _mapping(path: str) -> NDArray[np.uint8] | None:
    """Class of each word, that of none first; `None` without the file."""
    found = _matlab(path, MAPPING_FILE, ["mapClass"])
    if found is None:
        return None
    classes = found["mapClass"].ravel()
    if classes.dtype.kind not in "fiu" or not np.isin(classes, range(1, len(NYU40) + 1)).all():
        raise SourceError(f"{path}: mapClass in {MAPPING_FILE} has other numbers than 1 to 40")
    return np.concatenate([[UNKNOWN_CLASS], classes - 1]).astype(np.uint8)


def _splits(path: str) -> dict[str, list[int]]:
    """Pictures of each split, from 0; nothing without the file."""
    found = _matlab(path, SPLIT_FILE, list(SPLITS.values()))
    if found is None:
        return {}
    numbers = {name: found[key].ravel() for name, key in SPLITS.items()}
    if any(each.dtype.kind not in "fiu" for each in numbers.values()):
        raise SourceError(f"{path}: {SPLIT_FILE} has no numbers of pictures")
    return {name: (each.astype(int) - 1).tolist() for name, each in numbers.items()}


def _matlab(path: str, name: str, variables: Sequence[str]) -> dict[str, NDArray[Any]] | None:
    fs, place = _place(path, name)
    if not fs.isfile(place):
        return None
    return read_matlab(fs, place, variables)


def _place(path: str, name: str) -> tuple[Any, str]:
    """A file of the set, beside the large one if that is what the user named."""
    fs, root = open_place(path)
    folder = root.rpartition("/")[0] if root.endswith(".mat") else root
    return fs, root if root.endswith(".mat") and name == FILE else f"{folder}/{name}"
