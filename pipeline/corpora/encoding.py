"""Made pictures and masks as the bytes and labels of a sample."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

JPEG_QUALITY = 92


def jpeg(rgb: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def boxes(
    instances: UInt16[np.ndarray, "height width"], names: Sequence[str], min_share: float = 0.0
) -> dict[str, Any]:
    """Boxes of the instances 1, 2, … that cover at least `min_share` of the picture, as a `det`
    label: corners 0..1 of the whole picture, name, score 1."""
    height, width = instances.shape
    found = []
    for number, name in enumerate(names, start=1):
        rows, columns = np.nonzero(instances == number)
        if len(rows) > min_share * instances.size:
            box = [
                columns.min() / width, rows.min() / height,
                (columns.max() + 1) / width, (rows.max() + 1) / height,
            ]  # fmt: skip
            found.append({"boxes": [float(each) for each in box], "class_name": name, "score": 1.0})
    return {"instances": found}
