"""Labels as pictures: one square a label, sheets of squares, and legends."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fourmill.manifests.cards import card, missing_card, swatch
from fourmill.manifests.colouring import (
    class_colours,
    class_map_colours,
    depth_colours,
    feature_colours,
    instance_colours,
    plane_colours,
    signed_colours,
    token_colours,
)
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.framing import PAGE, Box, frame_of, placed, resized
from fourmill.manifests.labels import Label
from fourmill.manifests.lettering import INK, drawable, font, line_height, write
from fourmill.manifests.modalities import Kind, Masking, Modality, modality
from fourmill.manifests.run_lengths import is_masks, paint_masks, read_masks


def render(
    definition: Modality,
    label: Label | None,
    size: int,
    image: NDArray[Any] | None = None,
    like: Label | None = None,
) -> UInt8[np.ndarray, "size size 3"]:
    """A label as a square picture; what is not square is fitted in, with white beside it.

    Args:
        label: of the modality `definition`, or `None` for one that is missing.
        size: pixels of a side.
        image: uint8 `[H, W, 3]`, the sample's picture: dense labels take its proportions, and
            boxes, instances and crops (in its pixels) are drawn on it.
        like: another label of the modality, whose range and components depth, planes, features
            and vectors are coloured with: so a prediction is comparable with the label beside it.
    """
    if label is None:
        return missing_card(size)
    if is_masks(definition):
        definition, label = modality("instances"), _painted(label)
    if definition.kind in _PLANES or _is_token_grid(definition, label):
        return _plane(definition, label, size, image, like)
    return card(definition, label, size, image)


def sheet(
    rows: Sequence[Sequence[NDArray[Any]]],
    columns: Sequence[str],
    row_titles: Sequence[str] | None = None,
    title: str = "",
) -> Image.Image:
    """Pictures of one size in rows and columns, with headings.

    Args:
        rows: pictures as `render` makes them, one a column.
        row_titles: one a row, to its left.

    Raises:
        ValueError: no pictures; not as many as headings; not all of one size.
    """
    size = _common_size(rows, columns, row_titles)
    gap = max(4, size // 24)
    heading = max(12, size // 9)
    left = gap + (round(0.7 * size) + gap if row_titles else 0)
    over = gap + (2 * heading if title else 0)
    top = over + 2 * line_height(heading) + gap // 2
    page = Image.new(
        "RGB", (left + len(columns) * (size + gap), top + len(rows) * (size + gap)), PAGE
    )
    draw = ImageDraw.Draw(page)
    if title:
        box = Box(gap, gap, page.width - 2 * gap, 2 * heading)
        write(draw, title, box, largest=round(1.5 * heading))
    for number, name in enumerate(columns):
        box = Box(left + number * (size + gap), over, size, top - over - gap // 2)
        write(draw, name, box, largest=heading, centred=True, down=1.0)
    for row, pictures in enumerate(rows):
        down = top + row * (size + gap)
        if row_titles:
            box = Box(gap, down, left - 2 * gap, size)
            write(draw, row_titles[row], box, largest=heading, down=0.5)
        for column, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture), (left + column * (size + gap), down))
    return page


def refuse_no_picture(file: Path) -> None:
    """Refuse to write a sheet into a file that is named as no picture, before there is one.

    Raises:
        ConfigError: its ending tells no format.
    """
    if file.suffix.lower() not in Image.registered_extensions():
        raise ConfigError(f"{file}: expected a file named as a picture, such as {file.stem}.png")


def legend(classes: Sequence[str], width: int = 960) -> Image.Image:
    """The names of classes beside their colours, in as many columns as `width` pixels hold."""
    text, gap = 16, 10
    names = [drawable(name) for name in classes]
    longest = max((font(text).getlength(name) for name in names), default=0)
    step = round(longest) + text + 3 * gap
    columns = max(1, min(len(names), (width - gap) // step))
    rows = -(-len(names) // columns)
    page = Image.new("RGB", (max(width, step + gap), rows * (text + gap) + gap), PAGE)
    draw = ImageDraw.Draw(page)
    colours = class_colours(tuple(classes))
    for number, name in enumerate(names):
        left, top = gap + number // rows * step, gap + number % rows * (text + gap)
        swatch(draw, Box(left, top, text, text), colours[number])
        draw.text((left + text + gap, top - 2), name, INK, font(text))
    return page


def _common_size(
    rows: Sequence[Sequence[NDArray[Any]]],
    columns: Sequence[str],
    row_titles: Sequence[str] | None,
) -> int:
    shapes = {picture.shape for row in rows for picture in row}
    if len(shapes) != 1:
        raise ValueError(f"expected pictures of one size, found {sorted(shapes)}")
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"rows of {[len(row) for row in rows]} pictures, {len(columns)} columns")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"{len(row_titles)} titles for {len(rows)} rows")
    return int(shapes.pop()[0])


# -- what covers the picture's plane -----------------------------------------------------------

_PLANES = frozenset({*(each for each in Kind if each.is_dense), Kind.VECTOR, Kind.SEQUENCE})
_BLOCKY = frozenset({
    Kind.CLASSES, Kind.INSTANCES, Kind.FEATURE_MAP, Kind.TOKENS, Kind.VECTOR, Kind.SEQUENCE,
})  # fmt: skip


def _painted(label: Label) -> NDArray[np.uint16]:
    masks = [each.mask() for each in read_masks(label)]
    return paint_masks(masks, masks[0].shape if masks else (1, 1))


def _is_token_grid(definition: Modality, label: Label) -> bool:
    if definition.kind is not Kind.TOKENS or definition.masking is not Masking.IMAGE:
        return False
    assert isinstance(label, np.ndarray)
    height, width = definition.grid
    return bool(label.shape[-1] == height * width)


def _plane(
    definition: Modality,
    label: Label,
    size: int,
    image: NDArray[Any] | None,
    like: Label | None,
) -> NDArray[np.uint8]:
    assert isinstance(label, np.ndarray)
    assert like is None or isinstance(like, np.ndarray)
    colours = _plane_colours(definition, label, like)
    whole = colours if image is None or not definition.kind.is_dense else image
    frame = frame_of(whole, size)
    picture = resized(colours, frame, is_blocky=definition.kind in _BLOCKY)
    if definition.kind is Kind.INSTANCES and image is not None:
        below = resized(image, frame)
        some = picture.any(axis=-1, keepdims=True)
        pale = below // 3 + 150
        picture = np.where(some, below // 3 + 2 * (picture // 3), pale)
    return placed(picture, frame, size)


def _plane_colours(
    definition: Modality, label: NDArray[Any], like: NDArray[Any] | None
) -> NDArray[np.uint8]:
    match definition.kind:
        case Kind.DEPTH:
            return depth_colours(label, like)
        case Kind.PLANE:
            return plane_colours(label, like)
        case Kind.EDGE:
            return np.repeat(label[..., None], 3, axis=-1)
        case Kind.CLASSES:
            return class_map_colours(label, definition.classes)
        case Kind.INSTANCES:
            return instance_colours(label)
        case Kind.FEATURE_MAP:
            return feature_colours(label, like)
        case Kind.TOKENS:
            crop = label.reshape(-1, label.shape[-1])[0]
            return token_colours(crop.reshape(definition.grid))
        case Kind.VECTOR:
            return signed_colours(_cells(label), None if like is None else _cells(like))
        case Kind.SEQUENCE:
            return signed_colours(label.astype(np.float32), like)
        case _:
            return label


def _cells(vector: NDArray[Any]) -> NDArray[Any]:
    """The numbers row by row in a square, zeros behind the last."""
    side = math.ceil(math.sqrt(vector.size))
    cells = np.zeros((side, side), vector.dtype)
    cells.ravel()[: vector.size] = vector
    return cells
