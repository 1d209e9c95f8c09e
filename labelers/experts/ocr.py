"""Text in the picture: signs, titles, labels, with the place of each line."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.package_weights import checked_pip_file
from fourmill.labelers.required import check_packages
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_PACKAGE, _VERSION = "rapidocr-onnxruntime", "1.4.4"
_FOLDER = "rapidocr_onnxruntime/models/"
_DETECTOR = _FOLDER + "ch_PP-OCRv4_det_infer.onnx"
_DETECTOR_SHA256 = "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"
_RECOGNISER = _FOLDER + "ch_PP-OCRv4_rec_infer.onnx"
_RECOGNISER_SHA256 = "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"


class OCR(Labeler):
    """Lines in the order of reading: `class_name` is what the line says, `boxes` what it fills.

    Latin letters and Chinese, upright or turned by a quarter; what stands on its head is not
    turned. Handwriting is mostly missed.
    """

    spec = LabelerSpec(
        name="ocr",
        version=1,
        reads=("rgb",),
        writes=("ocr",),
        summary="lines of text with their boxes, by PP-OCRv4",
        licence="Apache-2.0 (RapidOCR, PaddleOCR)",
        citation="Li et al. 2023, PP-OCRv4 (PaddleOCR); Liao et al. 2020, arXiv:1911.08947",
        weights=f"pip {_PACKAGE}=={_VERSION} ch_PP-OCRv4_det_infer.onnx, "
        "ch_PP-OCRv4_rec_infer.onnx",
        weights_mb=16,
        requires={"onnxruntime": "ocr"},
        resources=Resources(memory_gib=1.5, batch_size=8),
    )

    def weights_sha256(self) -> str:
        import hashlib

        return hashlib.sha256(f"{_DETECTOR_SHA256} {_RECOGNISER_SHA256}".encode()).hexdigest()

    def load(self, device: str) -> None:
        check_packages(self.spec)
        from fourmill.labelers.backbones.text_lines import TextReader

        detector, recogniser = (
            checked_pip_file(_PACKAGE, _VERSION, path, sha256)
            for path, sha256 in ((_DETECTOR, _DETECTOR_SHA256), (_RECOGNISER, _RECOGNISER_SHA256))
        )
        self._reader = TextReader(detector, recogniser, device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"ocr": {"instances": self._lines(sample)}} for sample in batch]

    def _lines(self, sample: Sample) -> list[dict[str, Any]]:
        height, width = sample["rgb"].shape[:2]
        return [
            {
                "boxes": _share(line.corners, width, height),
                "class_name": line.text.strip(),
                "score": round(line.score, 4),
            }
            for line in self._reader.read(sample["rgb"])
        ]


def _share(corners: np.ndarray, width: int, height: int) -> list[float]:
    ends = np.concatenate([corners.min(axis=0), corners.max(axis=0) + 1])
    shares = np.clip(ends / [width, height, width, height], 0, 1)
    return [round(float(each), 4) for each in shares]


LABELER = OCR
