"""The corpus `composites`: photographic cut-outs on photographs of places, with exact labels."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from fourmill.manifests.labels import Label
from fourmill.manifests.packages import record
from fourmill.pipeline.corpora import photos
from fourmill.pipeline.corpora.cutouts import patch
from fourmill.pipeline.corpora.encoding import boxes, jpeg
from fourmill.pipeline.corpora.stamps import CREATOR, LICENCE, Stamp, stamps
from fourmill.pipeline.corpora.wording import listing
from fourmill.pipeline.sources.base import Item, RawSample

SIZE = 256  # pixels of a side
VAL_SHARE = 0.1
VERSION = 1  # raised whenever the same seed gives other pictures
UNKNOWN = 255  # class of the background: nobody labelled it
MIN_VISIBLE = 0.35  # of each cut-out, whatever covers it


@dataclass(frozen=True)
class Composite:
    """One picture with what is exactly known of it.

    Attributes:
        instances: 1 + index in `stamps`, 0 for the background.
    """

    rgb: UInt8[np.ndarray, "height width 3"]
    instances: UInt16[np.ndarray, "height width"]
    stamps: tuple[Stamp, ...]
    background: photos.Photo


@dataclass(frozen=True)
class CompositesSource:
    """`count` pictures; a tenth is `val`, made of cut-outs and backgrounds that no other shows."""

    count: int = 200
    seed: int = 0
    name: str = "builtin:composites"
    label_modalities: Sequence[str] = ("truth_semseg_coarse", "truth_instances", "truth_det")

    @property
    def params(self) -> Mapping[str, Any]:
        """All that decides what the samples are."""
        return {
            "count": self.count,
            "seed": self.seed,
            "version": VERSION,
            "packages": {each: record("apt", each).version for each in photos.PACKAGES},
        }

    def listing(self) -> list[Item]:
        """One item a picture."""
        num_val = round(VAL_SHARE * self.count)
        splits = ["train"] * (self.count - num_val) + ["val"] * num_val
        return [
            Item(f"composite-{index:06d}", split, where=(split, index))
            for index, split in enumerate(splits)
        ]

    def read(self, item: Item) -> RawSample:
        """The picture, composed."""
        split, index = item.where
        made = compose(self.seed, index, split)
        names = [each.spoken for each in made.stamps]
        classes = np.array([UNKNOWN, *(each.klass for each in made.stamps)], np.uint8)
        labels: dict[str, Label] = {
            "truth_semseg_coarse": classes[made.instances],
            "truth_instances": made.instances,
            "truth_det": boxes(made.instances, names),
        }
        caption = listing(names)
        source = {
            "file": item.name,
            "title": caption,
            "creator": f"cut-outs: {CREATOR}; background: {made.background.creator}",
            "licence": f"cut-outs: {LICENCE}; background: {made.background.licence}",
            "url": made.background.url,
            "dataset": self.name,
        }
        known = {key: value for key, value in source.items() if value}
        return RawSample(jpeg(made.rgb), caption, labels, known)


def compose(seed: int, index: int, split: str = "train") -> Composite:
    """Picture `index` of a split; the same arguments give the same picture.

    Raises:
        MissingPackageError: a package with pictures is not there and cannot be fetched.
    """
    held_out = split == "val"
    rng = np.random.default_rng([VERSION, seed, index, int(held_out)])
    cutouts = [each for each in stamps() if each.is_held_out == held_out]
    places = [each for each in photos.photos() if each.place and each.is_held_out == held_out]
    background = places[int(rng.integers(len(places)))]
    rgb = _crop(rng, _background(background))
    instances = np.zeros((SIZE, SIZE), np.uint16)
    placed: list[Stamp] = []
    tries = int(rng.integers(1, 6))
    while tries > 0 or not placed:
        tries -= 1
        stamp = cutouts[int(rng.integers(len(cutouts)))]
        if _paste(rng, rgb, instances, stamp, len(placed) + 1):
            placed.append(stamp)
    return Composite(rgb, instances, tuple(placed), background)


def _paste(
    rng: np.random.Generator,
    rgb: UInt8[np.ndarray, "height width 3"],
    instances: UInt16[np.ndarray, "height width"],
    stamp: Stamp,
    number: int,
) -> bool:
    """Put the cut-out somewhere where enough of it and of those before stays visible."""
    pixels = stamp.pixels()
    before = np.bincount(instances.ravel(), minlength=number)
    for _ in range(10):
        longest = rng.uniform(0.22, 0.65) * SIZE
        scale = min(longest / max(pixels.shape[:2]), 2.5)
        size = (round(pixels.shape[0] * scale), round(pixels.shape[1] * scale))
        if min(size) < 8:
            continue
        corner = (
            int(rng.integers(-size[0] // 5, SIZE - 4 * size[0] // 5)),
            int(rng.integers(-size[1] // 5, SIZE - 4 * size[1] // 5)),
        )
        flipped = pixels[:, ::-1] if rng.uniform() < 0.5 else pixels
        piece = patch(flipped, size, corner, (SIZE, SIZE), float(rng.uniform(0.85, 1.1)))
        if piece is None:
            continue
        solid = piece.alpha > 0.5
        after = instances.copy()
        after[piece.rows, piece.columns][solid] = number
        left = np.bincount(after.ravel(), minlength=number + 1)[1:number]
        if np.all(left >= MIN_VISIBLE * before[1:number]) and solid.sum() >= 100:
            piece.blend(rgb, piece.alpha)
            instances[:] = after
            return True
    return False


@lru_cache(maxsize=200)
def _background(photo: photos.Photo) -> UInt8[np.ndarray, "height width 3"]:
    with Image.open(io.BytesIO(photos.read_photo(photo))) as image:
        image.draft("RGB", (2 * SIZE, 2 * SIZE))
        small = image.convert("RGB")
    scale = 1.5 * SIZE / min(small.size)
    size = (round(small.width * scale), round(small.height * scale))
    return np.asarray(small.resize(size, Image.Resampling.LANCZOS))


def _crop(
    rng: np.random.Generator, picture: UInt8[np.ndarray, "rows columns 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    side = int(rng.uniform(0.6, 1.0) * min(picture.shape[:2]))
    top, left = (int(rng.integers(0, picture.shape[i] - side + 1)) for i in range(2))
    part = picture[top : top + side, left : left + side]
    if rng.uniform() < 0.5:
        part = part[:, ::-1]
    return np.asarray(cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
