"""Lines of text in a picture: where they are, and what they say.

The networks of PP-OCRv4 (Li et al. 2023): a detector whose map says how likely each pixel belongs
to the inner part of a line (differentiable binarisation, Liao et al. 2020, arXiv:1911.08947), and a
recogniser that reads one line from left to right (CTC, Graves et al. 2006). Both see BGR.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray

# as PaddleOCR and RapidOCR have them for these weights
_SHORTEST_SIDE = 736
_LONGEST_SIDE = 2000
_MULTIPLE = 32
_INNER = 0.3  # of the map: what counts as the inner part of a line
_BOX_SCORE = 0.5
_GROWTH = 1.6  # area over perimeter of an inner part, times this, is what lies around it
_LEAST_SIDE = 3  # pixels of the map
_TEXT_SCORE = 0.5
_LINE_HEIGHT, _LINE_WIDTH = 48, 320
_UPRIGHT = 1.5  # a box this much higher than wide is a line that was turned by 90 degrees

Corners = Float32[np.ndarray, "4 2"]
"""x and y of the upper left corner, and on clockwise, in pixels of the picture."""


@dataclass(frozen=True)
class TextLine:
    """One line: its text, the mean probability of its letters, and its corners."""

    text: str
    score: float
    corners: Corners


class TextReader:
    """Both networks, run by onnxruntime."""

    def __init__(self, detector: Path, recogniser: Path, device: str) -> None:
        self._detector = _session(detector, device)
        self._recogniser = _session(recogniser, device)
        characters = self._recogniser.get_modelmeta().custom_metadata_map["character"]
        self._alphabet = ["", *characters.splitlines(), " "]

    def read(self, rgb: UInt8[np.ndarray, "H W 3"]) -> list[TextLine]:
        """The lines of a picture, in the order of reading: downwards, then to the right."""
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        found = [self._line(bgr, corners) for corners in self._find(bgr)]
        return [each for each in found if each.text.strip() and each.score >= _TEXT_SCORE]

    def _find(self, bgr: UInt8[np.ndarray, "H W 3"]) -> list[Corners]:
        height, width = bgr.shape[:2]
        rows, columns = detection_size(height, width)
        (likely,) = self._detector.run(None, {"x": _normalised(cv2.resize(bgr, (columns, rows)))})
        scale = np.array([width / columns, height / rows], np.float32)
        limit = np.array([width - 1, height - 1], np.float32)
        boxes = [np.clip(each * scale, 0, limit) for each in boxes_of(likely[0, 0])]
        whole = [each for each in boxes if min(_sides(each)) > _LEAST_SIDE]
        return in_reading_order(whole)

    def _line(self, bgr: UInt8[np.ndarray, "H W 3"], corners: Corners) -> TextLine:
        strip = straightened(bgr, corners)
        (shares,) = self._recogniser.run(None, {"x": _normalised(_padded(strip))})
        best = shares[0].argmax(axis=-1)
        kept = _ctc(best)
        letters = [self._alphabet[index] for index in best[kept]]
        score = float(shares[0][kept, best[kept]].mean()) if letters else 0.0
        return TextLine("".join(letters), score, corners)


def detection_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns that the detector sees: small pictures are enlarged, large ones shrunk.

    >>> detection_size(368, 500), detection_size(1, 2000), detection_size(4000, 3000)
    ((736, 992), (32, 1984), (1984, 1504))
    """
    scale = max(_SHORTEST_SIDE / min(height, width), 1.0)
    scale = min(scale, _LONGEST_SIDE / max(height, width))
    rows, columns = (
        max(round(int(side * scale) / _MULTIPLE), 1) * _MULTIPLE for side in (height, width)
    )
    return rows, columns


def boxes_of(likely: Float32[np.ndarray, "h w"]) -> list[Corners]:
    """The rectangles around the inner parts of lines, grown to the whole lines; map's pixels."""
    inner = cv2.dilate((likely > _INNER).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(inner, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return [box for contour in contours if (box := _box_of(contour, likely)) is not None]


def in_reading_order(boxes: list[Corners]) -> list[Corners]:
    """Rows from top to bottom, each from left to right; a row's boxes overlap its first one."""
    rows: list[list[Corners]] = []
    for box in sorted(boxes, key=lambda box: (float(box[:, 1].mean()), float(box[0, 0]))):
        first = rows[-1][0] if rows else None
        middle = float(box[:, 1].mean())
        if first is not None and first[:, 1].min() <= middle <= first[:, 1].max():
            rows[-1].append(box)
        else:
            rows.append([box])
    return [box for row in rows for box in sorted(row, key=lambda box: float(box[0, 0]))]


def straightened(bgr: UInt8[np.ndarray, "H W 3"], corners: Corners) -> UInt8[np.ndarray, "h w 3"]:
    """The picture inside a box as an upright rectangle, turned to lie if it stands."""
    width, height = (max(int(side), 1) for side in _sides(corners))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    strip: NDArray[Any] = cv2.warpPerspective(
        bgr, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.rot90(strip).copy() if height >= _UPRIGHT * width else strip


def _session(path: Path, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # one thread: its worker owns one core, and sums are always in the same order
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    there = onnxruntime.get_available_providers()
    providers = [*(each for each in wanted if each in there), "CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _normalised(bgr: NDArray[Any]) -> Float32[np.ndarray, "1 3 h w"]:
    scaled = bgr.astype(np.float32) / 127.5 - 1
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]


def _padded(strip: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "48 columns 3"]:
    """At the recogniser's height, grey (which is 0 after normalisation) to the right."""
    height, width = strip.shape[:2]
    columns = max(math.ceil(_LINE_HEIGHT * width / height), 1)
    line = np.full((_LINE_HEIGHT, max(columns, _LINE_WIDTH), 3), 127.5, np.float32)
    line[:, :columns] = cv2.resize(strip, (columns, _LINE_HEIGHT))
    return line


def _ctc(best: Int64[np.ndarray, " steps"]) -> NDArray[np.bool_]:
    """Which steps say a letter: neither blank nor the same as the step before."""
    changed = np.ones(len(best), bool)
    changed[1:] = best[1:] != best[:-1]
    kept: NDArray[np.bool_] = changed & (best != 0)
    return kept


def _box_of(contour: NDArray[Any], likely: Float32[np.ndarray, "h w"]) -> Corners | None:
    (x, y), (width, height), angle = cv2.minAreaRect(contour)
    if min(width, height) < _LEAST_SIDE:
        return None
    inner = _clockwise(cv2.boxPoints(((x, y), (width, height), angle)))
    if _mean_inside(likely, inner) < _BOX_SCORE:
        return None
    around = 2 * _GROWTH * width * height / (2 * (width + height))
    if min(width, height) + around < _LEAST_SIDE + 2:
        return None
    return _clockwise(cv2.boxPoints(((x, y), (width + around, height + around), angle)))


def _mean_inside(likely: Float32[np.ndarray, "h w"], corners: Corners) -> float:
    height, width = likely.shape
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width - 1, height - 1))
    part = likely[top : bottom + 1, left : right + 1]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(corners - (left, top)).astype(np.int32)], (1,))
    return float(part[mask > 0].mean()) if mask.any() else 0.0


def _clockwise(points: NDArray[Any]) -> Corners:
    """The two leftmost corners are the left ones; of each pair the upper comes first."""
    left, right = np.split(points[np.argsort(points[:, 0], kind="stable")], 2)
    upper_left, lower_left = left[np.argsort(left[:, 1], kind="stable")]
    upper_right, lower_right = right[np.argsort(right[:, 1], kind="stable")]
    return np.stack([upper_left, upper_right, lower_right, lower_left]).astype(np.float32)


def _sides(corners: Corners) -> tuple[float, float]:
    """Width and height of a box, the longer of two opposite sides each."""
    ends = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    return float(max(ends[0], ends[2])), float(max(ends[1], ends[3]))
