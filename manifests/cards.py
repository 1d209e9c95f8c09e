"""Labels that are no map of the picture: boxes and crops drawn on it, words, colours, rankings."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fourmill.manifests.colouring import class_colours
from fourmill.manifests.framing import PAGE, Box, Colour, frame_of, placed, resized
from fourmill.manifests.labels import Label
from fourmill.manifests.lettering import INK, PALE_INK, drawable, font, line_height, write
from fourmill.manifests.modalities import Kind, Modality

_CARD: Colour = (244, 244, 241)


def card(
    definition: Modality, label: Label, size: int, image: NDArray[Any] | None
) -> NDArray[np.uint8]:
    """A label that does not cover the picture's plane; see `render.render`."""
    canvas = Image.new("RGB", (size, size), _CARD)
    match definition.kind:
        case Kind.BOXES:
            _draw_boxes(canvas, label, image)
        case Kind.CROPS:
            _draw_crops(canvas, label, image)
        case _:
            _draw_words(canvas, label)
    return np.asarray(canvas)


def missing_card(size: int) -> NDArray[np.uint8]:
    """Grey stripes: there is no label."""
    rows, columns = np.indices((size, size))
    stripe = (rows + columns) // max(2, size // 24) % 2
    canvas = Image.fromarray(np.where(stripe, 214, 226).astype(np.uint8)).convert("RGB")
    box = Box(0, 0, size, size)
    write(
        ImageDraw.Draw(canvas), "missing", box,
        largest=max(9, size // 9), fill=PALE_INK, centred=True, down=0.5,
    )  # fmt: skip
    return np.asarray(canvas)


def _on_image(canvas: Image.Image, image: NDArray[Any] | None) -> Box:
    """Put the picture on the canvas, if there is one; where it lies."""
    size = canvas.width
    if image is None:
        return Box(0, 0, size, size)
    frame = frame_of(image, size)
    canvas.paste(Image.fromarray(placed(resized(image, frame), frame, size)))
    return frame


def _draw_boxes(canvas: Image.Image, label: Label, image: NDArray[Any] | None) -> None:
    assert isinstance(label, dict)
    frame = _on_image(canvas, image)
    draw = ImageDraw.Draw(canvas)
    wheel = class_colours(())
    thick, text = max(1, canvas.width // 80), max(9, canvas.width // 20)
    for each in sorted(label["instances"], key=lambda each: float(each["score"])):
        name = drawable(each["class_name"])
        colour = _plain(wheel[1 + zlib.crc32(name.encode()) % 60])
        corners = _corners(each["boxes"], frame)
        draw.rectangle(corners, outline=colour, width=thick)
        words = name if each["score"] == 1 else f"{name} {each['score']:.2f}"
        _tag(draw, words, corners[:2], colour, text, canvas.width)
    if not label["instances"]:
        corner = (frame.left, frame.top + line_height(text))
        _tag(draw, "none found", corner, _CARD, text, canvas.width)


def _corners(box: Sequence[int | float], frame: Box) -> tuple[int, int, int, int]:
    x0, x1 = (frame.left + round(each * (frame.width - 1)) for each in (box[0], box[2]))
    y0, y1 = (frame.top + round(each * (frame.height - 1)) for each in (box[1], box[3]))
    return x0, y0, x1, y1


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[int, int],
    colour: Colour,
    size: int,
    limit: int,
) -> None:
    """A word on a patch of colour, at or above a corner, wherever it fits into the picture."""
    letters = font(size)
    width, height = round(letters.getlength(text)) + 4, line_height(size)
    left = max(0, min(corner[0], limit - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    is_bright = float(np.dot(colour, (0.299, 0.587, 0.114))) > 140
    draw.text((left + 2, top), text, INK if is_bright else PAGE, letters)


def _draw_crops(canvas: Image.Image, label: Label, image: NDArray[Any] | None) -> None:
    assert isinstance(label, np.ndarray)
    ends = label[:, :2] + label[:, 2:4]
    height, width = ends.max(axis=0) if image is None else image.shape[:2]
    frame = _on_image(canvas, image)
    if image is None:
        frame = frame_of(np.empty((height, width)), canvas.width)
    draw = ImageDraw.Draw(canvas)
    wheel = class_colours(())
    for number, (start, end) in reversed(list(enumerate(zip(label[:, :2], ends, strict=True)))):
        share = (start[1] / width, start[0] / height, end[1] / width, end[0] / height)
        colour = _plain(wheel[1 + number % 60])
        draw.rectangle(_corners(share, frame), outline=colour, width=max(1, canvas.width // 80))


def _draw_words(canvas: Image.Image, label: Label) -> None:
    palette = _palette_of(label)
    ranking = _ranking_of(label)
    if palette:
        _draw_palette(canvas, palette)
    elif ranking:
        _draw_ranking(canvas, ranking)
    else:
        _write_card(canvas, "\n".join(_lines_of(label)))


def _write_card(canvas: Image.Image, text: str) -> None:
    size = canvas.width
    box = Box(0, 0, size, size).inside(max(3, size // 18))
    is_empty = not text.strip()
    write(
        ImageDraw.Draw(canvas), "empty" if is_empty else text, box,
        largest=max(9, size // 9), smallest=max(8, size // 22),
        fill=PALE_INK if is_empty else INK, down=0.5,
    )  # fmt: skip


def _palette_of(label: Label) -> list[Sequence[int]]:
    """The colours of a palette `[{"1": [[r, g, b]], "2": …}]`, of as many as it has at most."""
    first = label[0] if isinstance(label, list) and label else label
    if not isinstance(first, dict) or not first or not all(each.isdigit() for each in first):
        return []
    colours = first[max(first, key=int)]
    is_rgb = isinstance(colours, list) and all(
        isinstance(each, list) and len(each) == 3 for each in colours
    )
    return colours if is_rgb else []


def _draw_palette(canvas: Image.Image, colours: Sequence[Sequence[int]]) -> None:
    box = Box(0, 0, canvas.width, canvas.height).inside(canvas.width // 12)
    edges = np.linspace(box.left, box.left + box.width, len(colours) + 1).round().astype(int)
    draw = ImageDraw.Draw(canvas)
    for start, stop, colour in zip(edges, edges[1:], colours, strict=False):
        swatch(draw, Box(int(start), box.top, int(stop - start), box.height), colour)


def swatch(draw: ImageDraw.ImageDraw, box: Box, colour: Sequence[int] | NDArray[Any]) -> None:
    """Fill a box with a colour."""
    corners = (box.left, box.top, box.left + box.width - 1, box.top + box.height - 1)
    draw.rectangle(corners, fill=_plain(np.clip(colour, 0, 255)))


def _ranking_of(label: Label) -> list[tuple[str, float]]:
    """Names with scores of a list of `{"class_name", "score"}`, best first."""
    if not isinstance(label, list) or not label:
        return []
    if not all(isinstance(each, dict) and {"class_name", "score"} <= each.keys() for each in label):
        return []
    pairs = [(str(each["class_name"]), float(each["score"])) for each in label]
    return sorted(pairs, key=lambda pair: -pair[1])[:5]


def _draw_ranking(canvas: Image.Image, ranking: Sequence[tuple[str, float]]) -> None:
    box = Box(0, 0, canvas.width, canvas.height).inside(canvas.width // 18)
    draw = ImageDraw.Draw(canvas)
    step = box.height // len(ranking)
    text = max(9, min(canvas.width // 13, round(0.55 * step)))
    for number, (name, score) in enumerate(ranking):
        top = box.top + number * step
        words = Box(box.left, top, box.width, line_height(text))
        write(draw, f"{score:.2f} {name}", words, largest=text)
        under = top + line_height(text) + 1
        bar = max(2, step // 10)
        draw.rectangle((box.left, under, box.left + box.width - 1, under + bar), (224, 224, 220))
        end = box.left + max(1, round(min(max(score, 0), 1) * (box.width - 1)))
        draw.rectangle((box.left, under, end, under + bar), (70, 120, 190))


def _lines_of(label: Label) -> list[str]:
    if isinstance(label, str):
        return [label]
    if isinstance(label, np.ndarray):
        first = label.reshape(-1, label.shape[-1])[0] if label.size else label
        return [" ".join(map(str, first.tolist()))]
    pairs = label.items() if isinstance(label, Mapping) else enumerate(label)
    return [f"{name}: {_short(value)}" for name, value in pairs]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(colour: Sequence[int] | NDArray[Any]) -> Colour:
    red, green, blue = (int(each) for each in colour)
    return red, green, blue
