"""The corpus `photos`: photographs in Python's and Debian's packages, with text and credits.

They are handed out as the bytes that the package has, with two exceptions: wallpapers of many
megapixels are scaled down once, and cut-outs are put on a plain background.
"""

import hashlib
import importlib.util
import io
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fourmill.manifests.errors import SampleError
from fourmill.manifests.packages import fetch, is_cached, record
from fourmill.pipeline.corpora import gcompris, stamps
from fourmill.pipeline.corpora.cutouts import patch
from fourmill.pipeline.corpora.encoding import jpeg
from fourmill.pipeline.corpora.photo_texts import Shelf, shelves
from fourmill.pipeline.sources.base import Item, RawSample

log = logging.getLogger(__name__)

PACKAGES = (
    gcompris.PACKAGE, stamps.PACKAGE, "lomiri-wallpapers-16.04", "mate-backgrounds",
    "tuxpaint-data", "palapeli-data",
)  # fmt: skip
HELD_OUT_SHARE = 0.12
MAX_SIDE = 1024  # pixels, of wallpapers
MIN_STAMP_SIDE = 150  # smaller cut-outs look poor on their own


@dataclass(frozen=True)
class Photo:
    """One photograph with all that is known of it.

    Attributes:
        place: whether it shows a place, and so serves as a background of composites.
        where: what `read_photo` needs: a path, a cut-out, or a member of an archive.
    """

    name: str
    caption: str
    title: str
    creator: str
    licence: str
    url: str
    place: bool
    is_held_out: bool
    where: Path | stamps.Stamp | gcompris.Photo

    @property
    def source(self) -> dict[str, str]:
        """The sample's `source` label."""
        known = {
            "file": self.name, "title": self.title, "creator": self.creator,
            "licence": self.licence, "url": self.url, "dataset": "builtin:photos",
        }  # fmt: skip
        return {key: value for key, value in known.items() if value}


@dataclass(frozen=True)
class PhotosSource:
    """All photographs, or `count` of them; those that are `val` stay so."""

    count: int | None = None
    name: str = "builtin:photos"
    label_modalities: Sequence[str] = ()

    @property
    def params(self) -> Mapping[str, Any]:
        """All that decides what the samples are, with the packages that are there and missing."""
        there = [each for each in PACKAGES if _is_there(each)]
        return {
            "count": self.count,
            "packages": {each: record("apt", each).version for each in there},
            "missing": [each for each in PACKAGES if each not in there],
        }

    def listing(self) -> list[Item]:
        """One item a photograph; a smaller count takes those whose names have the smallest hashes.

        Raises:
            MissingPackageError: there is apt, but a package is not in the cache and cannot be
                fetched.
        """
        chosen = sorted(photos(), key=lambda each: _share(f"order {each.name}"))[: self.count]
        return [
            Item(each.name, "val" if each.is_held_out else "train")
            for each in sorted(chosen, key=lambda each: each.name)
        ]

    def read(self, item: Item) -> RawSample:
        """The photograph's bytes and its words."""
        photo = _by_name()[item.name]
        return RawSample(read_photo(photo), photo.caption, source=photo.source)


@lru_cache(maxsize=1)
def photos() -> tuple[Photo, ...]:
    """All photographs, in a stable order. Without apt, those of Python's packages, with a warning.

    Raises:
        MissingPackageError: see `PhotosSource.listing`.
    """
    found = [
        photo for shelf in shelves("installed")
        for photo in _from_shelf(shelf, _installed(shelf.package))
    ]  # fmt: skip
    missing = [each for each in PACKAGES if not _is_there(each)]
    if missing:
        log.warning(
            "there is no apt-get here, so photos lack packages=%s: only those that pip carries are "
            "left",
            ",".join(missing),
        )
    if gcompris.PACKAGE not in missing:
        found += _from_gcompris()
    for shelf in shelves("debian"):
        if shelf.package not in missing:
            found += _from_shelf(shelf, fetch("apt", shelf.package))
    if stamps.PACKAGE not in missing:
        found += _from_stamps()
    return tuple(found)


def read_photo(photo: Photo) -> bytes:
    """The file's bytes; JPEG for wallpapers and cut-outs.

    Raises:
        SampleError: the file is not readable.
    """
    if isinstance(photo.where, gcompris.Photo):
        return gcompris.read_photo(photo.where)
    if isinstance(photo.where, stamps.Stamp):
        return jpeg(on_plain_background(photo.where))
    try:
        data = photo.where.read_bytes()
    except OSError as error:
        raise SampleError("read", f"{photo.name}: {error}") from error
    return _scaled(data)


def on_plain_background(stamp: stamps.Stamp) -> np.ndarray:
    """The cut-out, uint8 [side, side, 3], on a bright background with a little of its shadow."""
    rng = np.random.default_rng(list(hashlib.sha256(stamp.name.encode()).digest()[:8]))
    pixels = stamp.pixels()
    longest = max(pixels.shape[:2])
    size = [round(each * min(max(longest, 224), 400) / longest) for each in pixels.shape[:2]]
    side = round(max(size) * rng.uniform(1.1, 1.35))
    slope = np.linspace(1.0, rng.uniform(0.8, 1.0), side)[:, None, None]
    tint = rng.uniform(210, 255) * rng.uniform(0.96, 1.0, 3)
    picture = np.broadcast_to(np.clip(tint * slope, 0, 255), (side, side, 3)).astype(np.uint8)
    corner = ((side - size[0]) // 2, (side - size[1]) // 2)
    piece = patch(pixels, (size[0], size[1]), corner, (side, side))
    assert piece is not None
    piece.blend(picture, piece.alpha)
    return picture


def _scaled(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) <= MAX_SIDE:
            return data
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        return jpeg(np.asarray(image.convert("RGB")))


def _from_shelf(shelf: Shelf, folder: Path) -> Iterator[Photo]:
    for text in shelf.texts:
        name = f"{shelf.package}/{text.path}"
        path = folder / shelf.folder / text.path
        if path.is_file():
            yield Photo(
                name, text.caption, text.caption.rstrip("."), text.creator, text.licence, "",
                text.place, _share(name) < HELD_OUT_SHARE, path,
            )  # fmt: skip


def _from_gcompris() -> Iterator[Photo]:
    for each in gcompris.photos():
        name = f"gcompris/{each.name}"
        yield Photo(
            name, each.caption, each.title, each.creator, each.licence, each.url, each.place,
            _share(name) < HELD_OUT_SHARE, each,
        )  # fmt: skip


def _from_stamps() -> Iterator[Photo]:
    for each in stamps.stamps():
        if max(each.pixels().shape[:2]) >= MIN_STAMP_SIDE:
            yield Photo(
                f"tuxpaint/{each.name}", each.sentence, each.spoken, stamps.CREATOR,
                stamps.LICENCE, "", False, each.is_held_out, each,
            )  # fmt: skip


@lru_cache(maxsize=1)
def _by_name() -> dict[str, Photo]:
    return {each.name: each for each in photos()}


def _is_there(package: str) -> bool:
    return shutil.which("apt-get") is not None or is_cached("apt", package)


def _installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None  # a dependency of fourmill
    assert spec.origin is not None
    return Path(spec.origin).parent


def _share(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
