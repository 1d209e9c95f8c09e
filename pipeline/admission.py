"""Which samples enter a dataset, and as what bytes: read, decoded, filtered, scaled down."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import decode_image, image_format, image_size
from fourmill.pipeline.config import FilterConfig
from fourmill.pipeline.filters import STAGE, refuse_scores, refuse_size
from fourmill.pipeline.sources.base import Item, RawSample, Reading, Source, read_all
from fourmill.pipeline.sources.formats import as_supported
from fourmill.pipeline.twins import fingerprint

JPEG_QUALITY = 95
_THUMBNAIL = 64  # pixels: enough for the hash, and decodes at an eighth of the size


@dataclass(frozen=True)
class Treatment:
    """What becomes of the samples of a corpus.

    Attributes:
        max_side: pixels of the long side of what is stored; 0 keeps all bytes as they are.
        licence: of samples whose source names none.
    """

    max_side: int = 0
    licence: str = ""
    filters: FilterConfig = field(default_factory=FilterConfig)

    @property
    def params(self) -> dict[str, object]:
        """What of it decides bytes; nothing, if all is as it comes."""
        filters = self.filters.model_dump(exclude_defaults=True)
        chosen = {"max_side": self.max_side, "licence": self.licence, "filters": filters}
        return {name: value for name, value in chosen.items() if value}


@dataclass(frozen=True)
class Admitted:
    """A sample that enters the dataset.

    Attributes:
        sample: as it is stored.
        thumbnail: uint8 (h, w, 3), a small copy of the picture.
        fingerprint: perceptual hash of the picture.
    """

    item: Item
    sample: RawSample
    thumbnail: NDArray[np.uint8]
    fingerprint: int


def admit_all(
    sources: Sequence[Source],
    items: Sequence[tuple[int, Item]],
    treatment: Treatment,
    twins: Mapping[int, str],
) -> tuple[list[tuple[int, Admitted]], list[tuple[Item, SampleError]]]:
    """The samples of one shard that enter, with source and row, and the others with their reasons.

    Args:
        items: (source, item) of each row.
        twins: rows that are near duplicates, and of what.
    """
    readings: dict[int, Reading] = {}
    for number in sorted({each for each, _ in items}):
        rows = [row for row, (source, _) in enumerate(items) if source == number]
        found = read_all(sources[number], [items[row][1] for row in rows])
        readings |= dict(zip(rows, found, strict=True))
    admitted: list[tuple[int, Admitted]] = []
    refused: list[tuple[Item, SampleError]] = []
    for row, (number, item) in enumerate(items):
        reading = readings.pop(row)
        try:
            if isinstance(reading, SampleError):
                raise reading
            sample, thumbnail = admit(reading, treatment)
            if row in twins:
                raise SampleError(STAGE, f"a near duplicate of {twins[row]}")
            entry = Admitted(item, sample, thumbnail, fingerprint(thumbnail))
            admitted.append((number, entry))
        except SampleError as error:
            refused.append((item, error))
    return admitted, refused


def admit(sample: RawSample, treatment: Treatment) -> tuple[RawSample, NDArray[np.uint8]]:
    """The sample as it is stored, and a small copy of its picture, uint8 (h, w, 3).

    Raises:
        SampleError: stage `decode` for what is no picture, `filter` for what is not wanted.
    """
    image = as_supported(sample.image)
    thumbnail = np.asarray(decode_image(image, max_side=_THUMBNAIL))
    height, width = image_size(image)
    refuse_size(treatment.filters, height, width)
    refuse_scores(treatment.filters, sample.source)
    source = dict(sample.source)
    if treatment.licence:
        source.setdefault("licence", treatment.licence)
    if treatment.max_side and max(height, width) > treatment.max_side:
        image = scaled_down(image, treatment.max_side)
        source["original_size"] = f"{width}x{height}"
    return replace(sample, image=image, source=source), thumbnail


def scaled_down(image: bytes, max_side: int) -> bytes:
    """An upright picture with this long side: PNG stays PNG, all else becomes a JPEG.

    Raises:
        SampleError: stage `decode`.
    """
    pixels = Image.fromarray(decode_image(image, max_side=max_side))
    buffer = io.BytesIO()
    if image_format(image) == "png":
        pixels.save(buffer, "PNG")
    else:
        pixels.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
