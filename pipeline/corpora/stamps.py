"""Photographic cut-outs of Debian's `tuxpaint-stamps-default`: alpha is an exact mask, with a name.

Of its 950 pictures the photographs of things are used: no symbols, signs, flags or drawings.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.manifests.packages import fetch

PACKAGE = "tuxpaint-stamps-default"
LICENCE = "GPL-2.0-only"
CREATOR = "Bill Kendrick and the Tux Paint contributors"
HELD_OUT_SHARE = 0.15

_CLASSES = {
    "animals": "animal", "food": "food", "plants": "plant", "vehicles": "vehicle",
    "people": "person",
}  # fmt: skip
_SKIPPED_FOLDERS = frozenset({
    "symbols", "cartoon", "flags", "roadsigns", "hanukkah", "newyears", "naturalforces", "space",
    "military", "body_parts", "medical", "toys", "easter",
})  # fmt: skip
# drawings that have many colours, things named badly, and one photograph that is there twice
_SKIPPED_NAMES = frozenset({
    "button", "rooster", "toilet", "eggplant", "sedan_police", "lamp", "Santa", "fireman200b",
    "jackolantern_mean",
})  # fmt: skip
_SPOKEN = {
    "A ripe, red tomato!": "ripe red tomato", "A ginger 'root'.": "ginger root",
    "A very poisonous lionfish!": "lionfish", "The baby of a gnu.": "baby gnu",
    "An alien tree!": "rambutan tree", "A VW Beetle.": "car",
}  # fmt: skip
_PHRASE = re.compile(r"^(an?|the) (?P<name>[^.!(,:;—]+)", re.IGNORECASE)
_CLAUSE = re.compile(r" (is|are|was|were|has|have|resembles|lets|like|from|with|covered|in|used|"
                     r"called|made|on|hatched|inside|during) .*")  # fmt: skip
MIN_SIDE = 45
MIN_COLOURS = 140
MAX_EVEN_SHARE = 0.3


@dataclass(frozen=True)
class Stamp:
    """One cut-out.

    Attributes:
        name: its path below the stamps' folder.
        spoken: what a caption calls it, after an article.
        sentence: the package's own English caption.
        klass: index in `COARSE_CLASSES`.
    """

    name: str
    path: Path
    spoken: str
    sentence: str
    klass: int
    is_held_out: bool

    def pixels(self) -> UInt8[np.ndarray, "height width 4"]:
        """RGBA, cropped to what can be seen."""
        with Image.open(self.path) as image:
            array = np.asarray(image.convert("RGBA"))
        rows, columns = np.nonzero(array[..., 3] > 127)
        top, left = rows.min(), columns.min()
        return np.asarray(array[top : rows.max() + 1, left : columns.max() + 1])


@lru_cache(maxsize=1)
def stamps() -> tuple[Stamp, ...]:
    """All photographic cut-outs, in a stable order.

    Raises:
        MissingPackageError: the Debian package is not there and cannot be fetched.
    """
    folder = fetch("apt", PACKAGE) / "usr/share/tuxpaint/stamps"
    found = []
    for path in sorted(folder.rglob("*.png")):
        relative = path.relative_to(folder)
        text = path.with_suffix(".txt")
        if _SKIPPED_FOLDERS & set(relative.parts) or path.stem in _SKIPPED_NAMES:
            continue
        sentence = text.read_text("utf-8").splitlines()[0].strip() if text.is_file() else ""
        spoken = spoken_name(sentence)
        if spoken and _is_photo(path):
            found.append(_stamp(str(relative), path, spoken, sentence))
    return tuple(found)


def spoken_name(sentence: str) -> str:
    """The thing that a caption's sentence names, `""` where it says something else.

    >>> spoken_name("An albino peahen (a female peafowl, or peacock).")
    'albino peahen'
    >>> spoken_name("Eat your broccoli!")
    ''
    """
    if sentence in _SPOKEN:
        return _SPOKEN[sentence]
    found = _PHRASE.match(sentence)
    if found is None:
        return ""
    name = re.sub('[“”"‘]', "", _CLAUSE.sub("", found["name"])).strip()
    return name if len(name.split()) <= 5 else ""


def _stamp(name: str, path: Path, spoken: str, sentence: str) -> Stamp:
    klass = COARSE_CLASSES.index(_CLASSES.get(Path(name).parts[0], "object"))
    share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    return Stamp(name, path, spoken, sentence, klass, share < HELD_OUT_SHARE)


def _is_photo(path: Path) -> bool:
    """Photographs have many colours, and hardly two neighbours alike; drawings are the reverse."""
    with Image.open(path) as image:
        image.thumbnail((200, 200), Image.Resampling.NEAREST)
        array = np.asarray(image.convert("RGBA")).astype(np.int32)
    solid = array[..., 3] > 200
    if min(array.shape[:2]) < MIN_SIDE or solid.sum() < 400:
        return False
    levels = array[..., :3][solid] >> 3
    colours = len(np.unique(levels @ np.array([1024, 32, 1])))
    both = solid[:, 1:] & solid[:, :-1]
    steps = np.abs(np.diff(array[..., :3].sum(-1), axis=1))[both]
    return colours >= MIN_COLOURS and float((steps == 0).mean()) <= MAX_EVEN_SHARE
