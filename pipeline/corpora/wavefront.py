"""Wavefront OBJ models with their materials, read from a zip archive into a `Mesh`.

Only what the furniture catalogue uses: polygons, smooth normals, one diffuse texture a material.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from fourmill.pipeline.corpora.meshes import TEXTURE_SIDE, VERTEX, Mesh

MIN_OPACITY = 0.3
"""Panes and other glass that is clearer than this are left out: one sees, and measures, through."""

_GREY = (180, 180, 180)


@dataclass
class _Material:
    tint: tuple[int, int, int] = _GREY
    opacity: float = 1.0
    picture: str | None = None


def read_mesh(
    archive: zipfile.ZipFile,
    member: str,
    size: tuple[float, float, float],
    rotation: Sequence[float] = (),
) -> Mesh:
    """The model, turned, and scaled to `size` metres; it stands on y = 0, centred on x = z = 0.

    Args:
        rotation: nine numbers, a rotation matrix by rows; empty for none.
    """
    lines = archive.read(member).decode("latin-1").splitlines()
    materials = _read_materials(archive, member, lines)
    if all(each.opacity < MIN_OPACITY for name, each in materials.items() if name):
        materials = {name: replace(each, opacity=1.0) for name, each in materials.items()}
    names = list(materials)
    corners, owners = _read_faces(lines, materials)
    # one vertex for each distinct (position, texture coordinate, normal, material)
    keys = np.concatenate([corners, np.repeat(owners, 3)[:, None]], axis=1)
    distinct, triangles = np.unique(keys, axis=0, return_inverse=True)
    turn = np.array(rotation, np.float64).reshape(3, 3) if len(rotation) else np.eye(3)
    vertices = np.zeros(len(distinct), VERTEX)
    vertices["position"] = _place(_pick(lines, "v", distinct[:, 0], 3) @ turn.T, size)
    vertices["normal"] = _pick(lines, "vn", distinct[:, 2], 3) @ turn.T
    vertices["uv"] = _pick(lines, "vt", distinct[:, 1], 2)
    pictures = sorted({each.picture for each in materials.values() if each.picture})
    layers = {name: 1 + index for index, name in enumerate(pictures)}
    tints = np.array([materials[name].tint for name in names], np.uint8)
    chosen = np.array([layers.get(materials[name].picture or "", 0) for name in names], np.uint8)
    vertices["tint"], vertices["layer"] = tints[distinct[:, 3]], chosen[distinct[:, 3]]
    white = np.full((TEXTURE_SIDE, TEXTURE_SIDE, 4), 255, np.uint8)
    textures = np.stack([white, *(_read_picture(archive, each) for each in pictures)])
    return Mesh(vertices, triangles.reshape(-1, 3).astype(np.uint32), textures)


def _place(
    points: Float[np.ndarray, "n 3"], size: tuple[float, float, float]
) -> Float[np.ndarray, "n 3"]:
    low, high = points.min(0), points.max(0)
    scale = np.array(size) / np.maximum(high - low, 1e-9)
    origin = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return np.asarray((points - origin) * scale)


def _pick(
    lines: Sequence[str], tag: str, index: NDArray[np.int64], width: int
) -> Float[np.ndarray, "n width"]:
    """Rows `index` of the file's list `tag`; zeros where a corner has none (-1)."""
    rows = [each.split()[1 : 1 + width] for each in lines if each.startswith(tag + " ")]
    table = np.zeros((len(rows) + 1, width))
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table[index]


def _read_faces(
    lines: Sequence[str], materials: dict[str, _Material]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Corners [3 * triangles, 3] as (position, texture coordinate, normal), and their material."""
    names = {name: index for index, name in enumerate(materials)}
    counts = [0, 0, 0]
    order = {"v": 0, "vt": 1, "vn": 2}
    corners: list[tuple[int, ...]] = []
    owners: list[int] = []
    owner, visible = 0, True
    for line in lines:
        tag, _, rest = line.partition(" ")
        if tag in order:
            counts[order[tag]] += 1
        elif tag == "usemtl":
            owner = names.get(rest.strip(), 0)
            visible = list(materials.values())[owner].opacity >= MIN_OPACITY
        elif tag == "f" and visible:
            polygon = [_corner(each, counts) for each in rest.split()]
            for second, third in pairwise(polygon[1:]):
                corners += [polygon[0], second, third]
                owners.append(owner)
    return np.array(corners, np.int64).reshape(-1, 3), np.array(owners, np.int64)


def _corner(text: str, counts: Sequence[int]) -> tuple[int, ...]:
    """Indices from `7`, `7/1`, `7//3` or `7/1/3`: from 1 on, or backwards from -1; -1 for none."""
    parts = text.split("/")
    found = []
    for position, count in enumerate(counts):
        number = int(parts[position]) if position < len(parts) and parts[position] else 0
        found.append(number - 1 if number > 0 else count + number if number < 0 else -1)
    return tuple(found)


def _read_materials(
    archive: zipfile.ZipFile, member: str, lines: Sequence[str]
) -> dict[str, _Material]:
    materials = {"": _Material()}
    folder = str(PurePosixPath(member).parent)
    library = next((each[7:].strip() for each in lines if each.startswith("mtllib ")), "")
    path = f"{folder}/{library}"
    files = set(archive.namelist())
    if path not in files:
        return materials
    material = materials[""]
    for line in archive.read(path).decode("latin-1").splitlines():
        tag, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if tag == "newmtl":
            material = materials.setdefault(rest, _Material())
        elif tag == "Kd":
            red, green, blue = (min(max(float(each), 0), 1) * 255 for each in rest.split()[:3])
            material.tint = (round(red), round(green), round(blue))
        elif tag == "d":
            material.opacity = float(rest.split()[-1])
        elif tag == "map_Kd" and f"{folder}/{rest}" in files:
            material.picture = f"{folder}/{rest}"
    for each in materials.values():
        if each.picture and max(each.tint) < 16:  # some exporters write black beside a texture
            each.tint = (255, 255, 255)
    return materials


def _read_picture(archive: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(archive.read(name))) as picture:
        picture.draft("RGB", (4 * TEXTURE_SIDE, 4 * TEXTURE_SIDE))
        side = (TEXTURE_SIDE, TEXTURE_SIDE)
        return np.asarray(picture.convert("RGBA").resize(side, Image.Resampling.BOX))[::-1]
