"""What is wrong with a label, in words."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.run_lengths import is_masks, read_masks

UNKNOWN_CLASS = 255

_PLANES = {
    Kind.IMAGE: (np.uint8, "H W 3"),
    Kind.DEPTH: (np.float32, "H W"),
    Kind.NORMAL: (np.uint8, "H W 3"),
    Kind.EDGE: (np.uint8, "H W"),
    Kind.PLANE: (np.float32, "H W"),
    Kind.CLASSES: (np.uint8, "H W"),
    Kind.INSTANCES: (np.uint16, "H W"),
    Kind.FEATURE_MAP: (np.float16, "C h w"),
    Kind.VECTOR: (np.float32, "C"),
    Kind.SEQUENCE: (np.float16, "n C"),
    Kind.CROPS: (np.int64, "crops 5"),
}


def find_problem(modality: Modality, value: object) -> str | None:
    """What was found and what was expected, or `None` for a good label."""
    kind = modality.kind
    if kind is Kind.TEXT:
        return _text_problem(value)
    if kind is Kind.BOXES:
        return _boxes_problem(value) or _json_problem(value)
    if kind is Kind.STRUCTURE:
        if not isinstance(value, (dict, list)):
            return f"found {type(value).__name__}, expected a dict or a list"
        return _json_problem(value) or (_masks_problem(value) if is_masks(modality) else None)
    if not isinstance(value, np.ndarray):
        return f"found {type(value).__name__}, expected an array"
    if kind is Kind.TOKENS:
        return _tokens_problem(modality, value)
    return _plane_problem(modality, value) or _values_problem(modality, value)


def _plane_problem(modality: Modality, array: NDArray[Any]) -> str | None:
    dtype, axes = _PLANES[modality.kind]
    if array.dtype != dtype:
        return f"found {array.dtype}, expected {np.dtype(dtype)}"
    names = axes.split()
    sizes = {"C": modality.channels}
    expected = [int(each) if each.isdigit() else sizes.get(each, 0) for each in names]
    fits = array.ndim == len(names) and all(
        found > 0 and wanted in (0, found)
        for found, wanted in zip(array.shape, expected, strict=True)
    )
    if not fits:
        pairs = zip(names, expected, strict=True)
        text = ", ".join(str(size) if size else name for name, size in pairs)
        return f"found shape {list(array.shape)}, expected [{text}]"
    return None


def _values_problem(modality: Modality, array: NDArray[Any]) -> str | None:
    kind = modality.kind
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite"
    if kind is Kind.DEPTH and float(array.min()) < 0:
        return f"found depth {float(array.min()):g}, expected none below 0"
    if modality.value_range is not None:
        return _range_problem(array, *modality.value_range, modality.unit)
    if kind is Kind.CLASSES and modality.channels:
        wrong = array[(array >= modality.channels) & (array != UNKNOWN_CLASS)]
        if wrong.size:
            return (
                f"found class {int(wrong[0])}, expected 0 to {modality.channels - 1}, or "
                f"{UNKNOWN_CLASS} for unknown"
            )
    if kind is Kind.NORMAL:
        return _normal_problem(array)
    if kind is Kind.CROPS:
        return _crops_problem(array)
    return None


def _range_problem(array: NDArray[Any], low: float, high: float, unit: str) -> str | None:
    found = float(array.min()), float(array.max())
    # as float32 the ends themselves may be a little outside
    if found[0] >= float(np.float32(low)) and found[1] <= float(np.float32(high)):
        return None
    words = f" {unit}" if unit else ""
    return f"found {found[0]:g} to {found[1]:g}{words}, expected {low:g} to {high:g}{words}"


def _normal_problem(array: NDArray[Any]) -> str | None:
    # shorter than 1 is allowed: unknown is the zero vector, and mixed pixels are in between
    longest = float(np.sqrt(np.square(array / np.float32(127.5) - 1).sum(axis=-1).max()))
    if longest > 1.05:
        return f"found a vector of length {longest:.2f}, expected unit vectors as 127.5 * (n + 1)"
    return None


def _crops_problem(array: NDArray[Any]) -> str | None:
    top_left, size, flip = array[:, :2], array[:, 2:4], array[:, 4]
    if (top_left < 0).any() or (size < 1).any() or not np.isin(flip, (0, 1)).all():
        return "expected (top, left) from 0, (height, width) from 1, and flip 0 or 1"
    return None


def _tokens_problem(modality: Modality, array: NDArray[Any]) -> str | None:
    if array.dtype not in (np.int16, np.int32):
        return f"found {array.dtype}, expected int16 or int32"
    length = modality.max_tokens
    if array.ndim not in (1, 2) or (length and array.shape[-1] != length) or not array.size:
        wanted = length or "tokens"
        return f"found shape {list(array.shape)}, expected [{wanted}] or [crops, {wanted}]"
    low, high = int(array.min()), int(array.max())
    if low < 0 or (modality.vocab_size and high >= modality.vocab_size):
        return f"found ids {low} to {high}, expected 0 to {modality.vocab_size - 1}"
    return None


def _text_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"found {type(value).__name__}, expected a string"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"the text cannot be stored as UTF-8: {error}"
    return None


def _boxes_problem(value: object) -> str | None:
    instances = value.get("instances") if isinstance(value, dict) else None
    if not isinstance(instances, list):
        return 'expected {"instances": [...]}'
    for number, each in enumerate(instances):
        if not isinstance(each, dict):
            return f"instance {number}: found {type(each).__name__}, expected a dict"
        problem = _instance_problem(each)
        if problem:
            return f"instance {number}: {problem}"
    return None


def _instance_problem(instance: dict[Any, Any]) -> str | None:
    box, score = instance.get("boxes"), instance.get("score")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_share, box))):
        return f"boxes is {box!r}, expected [x0, y0, x1, y1] from 0 to 1"
    if box[0] > box[2] or box[1] > box[3]:
        return f"boxes is {box!r}, expected x0 <= x1 and y0 <= y1"
    if not (isinstance(instance.get("class_name"), str) and instance["class_name"]):
        return f"class_name is {instance.get('class_name')!r}, expected a name"
    return None if _is_share(score) else f"score is {score!r}, expected 0 to 1"


def _masks_problem(value: object) -> str | None:
    try:
        read_masks(value)
    except ValueError as error:
        return str(error)
    return None


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _json_problem(value: object) -> str | None:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return f"it cannot be stored as JSON: {error}"
    return None
