"""Detections: COCO's average precision, of boxes in the unit square of a crop."""

import contextlib
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.labels import Label
from fourmill.manifests.listed_agreement import match_boxes, matched
from fourmill.train.evaluation.metric import Metric, Scores

_STATISTICS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100",
)  # fmt: skip


class BoxMetric(Metric):
    """`ap` over intersections over union of 0.5 to 0.95, `ap50`, `ap75`, by size, and recall.

    The figures are pycocotools' own. Boxes of all samples are kept, some 100 bytes each. Names of
    classes are compared in lower case. What is predicted within a crowd of the truth (`crowds`,
    beside `instances`) is neither right nor wrong. The score of one sample is `f1` of matched
    boxes.

    Args:
        side: of the crop in pixels, by which boxes are small (below 32² pixels), medium (below 96²)
            or large.

    Raises:
        MissingPackageError: pycocotools is not installed.
    """

    headline = "f1"

    def __init__(self, side: int) -> None:
        try:
            import pycocotools  # noqa: F401
        except ImportError as error:
            raise MissingPackageError(
                "average precision of boxes needs pycocotools: `pip install 'fourmill[evaluate]'`"
            ) from error
        self._side = side
        self._truths: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._classes: dict[str, int] = {}
        self._samples = 0
        self._counts = np.zeros(3, np.int64)

    def add(self, truth: Label, predicted: Label) -> Scores:
        assert isinstance(truth, dict)
        assert isinstance(predicted, dict)
        truth, predicted = _lowered(truth), _lowered(predicted)
        self._samples += 1
        for each in truth["instances"]:
            self._truths.append(self._entry(each) | {"id": len(self._truths) + 1, "iscrowd": 0})
        for each in truth.get("crowds", ()):
            self._truths.append(self._entry(each) | {"id": len(self._truths) + 1, "iscrowd": 1})
        for each in predicted["instances"]:
            self._found.append(self._entry(each) | {"score": float(each["score"])})
        counts = match_boxes(truth, predicted)
        self._counts += counts
        return {"f1": matched(counts)["f1"]}

    def totals(self) -> Scores:
        f1 = matched(self._counts)["f1"]
        if not self._truths:
            return dict.fromkeys(_STATISTICS, math.nan) | {"f1": f1}
        return self._average_precision() | {"f1": f1}

    def _entry(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        left, top, right, bottom = (self._side * float(each) for each in instance["boxes"])
        return {
            "image_id": self._samples,
            "category_id": self._classes.setdefault(instance["class_name"], len(self._classes) + 1),
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
        }

    def _average_precision(self) -> dict[str, float]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it prints whatever it does
            truths, found = COCO(), COCO()
            truths.dataset = self._dataset(self._truths)
            found.dataset = self._dataset([
                each | {"id": number, "iscrowd": 0} for number, each in enumerate(self._found, 1)
            ])  # fmt: skip
            for each in (truths, found):
                each.createIndex()
            judged = COCOeval(truths, found, "bbox")
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
        values = judged.stats.tolist()[: len(_STATISTICS)]
        # -1 is what it says of sizes that no truth has
        return {
            name: value if value >= 0 else math.nan
            for name, value in zip(_STATISTICS, values, strict=True)
        }

    def _dataset(self, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "images": [
                {"id": number, "width": self._side, "height": self._side}
                for number in range(1, self._samples + 1)
            ],
            "categories": [
                {"id": number, "name": name} for name, number in self._classes.items()
            ],
            "annotations": annotations,
        }  # fmt: skip


def _lowered(label: Mapping[str, Any]) -> dict[str, Any]:
    """With names in lower case."""
    return {
        name: [{**each, "class_name": each["class_name"].lower()} for each in label[name]]
        for name in ("instances", "crowds")
        if name in label
    }
