"""The furniture catalogue of Debian's `sweethome3d-furniture`: named, metric, textured models.

820 models under CC0 and CC-BY 3.0, as Wavefront files inside `.sh3f` archives. A model is parsed
once and then kept as arrays in the package cache.
"""

import hashlib
import os
import zipfile
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from fourmill.manifests.modalities import COARSE_CLASSES
from fourmill.manifests.packages import cache_folder, fetch
from fourmill.pipeline.corpora.furniture_words import coarse_class, spoken_name
from fourmill.pipeline.corpora.meshes import Mesh
from fourmill.pipeline.corpora.wavefront import read_mesh

PACKAGE = "sweethome3d-furniture"
HELD_OUT_SHARE = 0.12
MAX_OBJ_BYTES = 6_000_000  # beyond are a few trees that take longer to draw than all else
MIN_SIDE = 0.08  # metres; smaller ones are never seen
MESH_FORMAT = 1  # of the cached arrays; raised when `read_mesh` gives something else

_UNUSED_TAGS = frozenset({"Electricity", "Electrical", "Money"})
_LICENCES = {"BlendSwap-CC-0": "CC0-1.0", "BlendSwap-CC-BY": "CC-BY-3.0"}


@dataclass(frozen=True)
class Model:
    """One entry of the catalogue; lengths in metres.

    Attributes:
        id: unique, with the collection's name.
        size: width (x), height (y) and depth (z).
        elevation: of its bottom above the floor, where it hangs.
        surface: height above its bottom on which things can stand; negative for none.
        is_held_out: only frames of the `val` split show it.
    """

    id: str
    name: str
    category: str
    tags: frozenset[str]
    creator: str
    licence: str
    archive: Path
    member: str
    crc: int
    size: tuple[float, float, float]
    elevation: float
    surface: float
    rotation: tuple[float, ...]
    is_held_out: bool = False

    @cached_property
    def klass(self) -> int:
        """Index in `COARSE_CLASSES`."""
        return COARSE_CLASSES.index(coarse_class(self.name, self.category, self.tags))

    @cached_property
    def spoken(self) -> str:
        """What a caption calls it."""
        return spoken_name(self.name)

    def mesh(self) -> Mesh:
        """Its triangles in metres, standing on y = 0, centred on x = z = 0, the front to +z."""
        digest = hashlib.sha256(f"{self.id} {self.crc} {self.size}".encode()).hexdigest()[:20]
        file = cache_folder() / "meshes" / f"{digest}-{MESH_FORMAT}.npz"
        if not file.exists():
            with zipfile.ZipFile(self.archive) as archive:
                mesh = read_mesh(archive, self.member, self.size, self.rotation)
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(f".{os.getpid()}.npz")
            np.savez(
                aside, vertices=mesh.vertices, triangles=mesh.triangles, textures=mesh.textures
            )
            os.replace(aside, file)
        with np.load(file, allow_pickle=False) as arrays:
            return Mesh(arrays["vertices"], arrays["triangles"], arrays["textures"])


@lru_cache(maxsize=1)
def catalogue() -> tuple[Model, ...]:
    """All models that are used, in a stable order.

    In each coarse class a fixed share, chosen by a hash of the ids, is held out.

    Raises:
        MissingPackageError: the Debian package is not there and cannot be fetched.
    """
    folder = fetch("apt", PACKAGE) / "usr/share/sweethome3d/furniture"
    models = [each for file in sorted(folder.glob("*.sh3f")) for each in _read(file)]
    by_class: dict[int, list[Model]] = defaultdict(list)
    for model in sorted(models, key=lambda each: hashlib.sha256(each.id.encode()).digest()):
        by_class[model.klass].append(model)
    held_out = {
        model.id
        for each in by_class.values()
        for model in each[: round(HELD_OUT_SHARE * len(each))]
    }
    return tuple(
        replace(each, is_held_out=each.id in held_out)
        for each in sorted(models, key=lambda each: each.id)
    )


def _read(file: Path) -> list[Model]:
    with zipfile.ZipFile(file) as archive:
        text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
        files = {each.filename: each for each in archive.infolist()}
    entries: dict[str, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        key, _, value = line.partition("=")
        field, _, number = key.partition("#")
        if number.isdigit():
            entries[number][field] = value.strip()
    models = [
        _model(each, file, files[each["model"].lstrip("/")].CRC)
        for each in entries.values() if "model" in each
    ]  # fmt: skip
    # people on chairs that are not there are left out
    return [
        each for each in models
        if not (each.name.startswith("Sitting") and each.size[1] > 0.95)
        and files[each.member].file_size <= MAX_OBJ_BYTES and max(each.size) >= MIN_SIDE
        and not each.tags & _UNUSED_TAGS
    ]  # fmt: skip


def _model(entry: dict[str, str], archive: Path, crc: int) -> Model:
    width, height, depth = (float(entry[each]) / 100 for each in ("width", "height", "depth"))
    surface = float(entry.get("dropOnTopElevation", 100 * height)) / 100
    return Model(
        id=entry["id"],
        name=entry["name"],
        category=entry["category"],
        tags=frozenset(each.strip() for each in entry["tags"].split(",")),
        creator=entry["creator"],
        licence=_LICENCES.get(archive.stem, "CC-BY-3.0"),
        archive=archive,
        member=entry["model"].lstrip("/"),
        crc=crc,
        size=(width, height, depth),
        elevation=float(entry.get("elevation", 0)) / 100,
        surface=surface,
        rotation=tuple(float(each) for each in entry.get("modelRotation", "").split()),
    )
