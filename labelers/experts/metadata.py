"""What can be measured of an image without a network, and counted in its other labels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.scene_measures import geometric_complexity, occlusion_score, semantics
from fourmill.labelers.sizes import shrunk
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label

_AREA = 512 * 512
_OPTIONAL = ("caption", "det", "instances", "semseg_coco", "normal", "depth", "source")
_SCORES = {"aesthetic_score": "aesthetic_score_laion_v2", "watermark_score": "watermark_score"}
"""COYO's columns by the names that 4M has for them."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


class Metadata(Labeler):
    """Those keys of 4M-21's `metadata` that can be known here, and no others.

    What is counted comes from the caption, from `det` and from `instances`, what is said of the
    scene from `semseg_coco`, `normal` and `depth`, and the scores of aesthetics and watermarks from
    the corpus (COYO brings them in `source`): each where a sample has it. Width and height are
    those of the stored image where the sample has its `image_size`, else those of `rgb`.
    """

    spec = LabelerSpec(
        name="metadata",
        version=2,
        reads=("rgb", *_OPTIONAL),
        optional=_OPTIONAL,
        writes=("metadata",),
        summary="size, brightness, contrast, saturation, colourfulness, entropy, counts, scene",
        licence="Apache-2.0",
        citation="Bachmann et al. 2024, 4M-21, arXiv:2406.09406 (the modality); Hasler and "
        "Suesstrunk 2003, Measuring colourfulness in natural images",
        resources=Resources(memory_gib=0.3, batch_size=64),
    )

    def load(self, device: str) -> None:
        """Nothing to load."""

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        return [{"metadata": _metadata(sample)} for sample in batch]


def _metadata(sample: Sample) -> dict[str, Any]:
    height, width = sample.get("image_size") or sample["rgb"].shape[:2]
    found: dict[str, Any] = {"original_width": width, "original_height": height}
    found |= appearance(shrunk(sample["rgb"], _AREA))
    if sample.get("caption"):
        found |= _words(sample["caption"])
    return found | _counts(sample) | _scene(sample) | _scores(sample)


def _words(caption: str) -> dict[str, int]:
    return {
        "caption_n_chars": len(caption),
        "caption_n_words": len(caption.split()),
        "caption_n_sentences": len(re.findall(r"[^.!?]*\w[^.!?]*", caption)),
    }


def _counts(sample: Sample) -> dict[str, int]:
    det, masks = sample.get("det"), sample.get("instances")
    found = {}
    if det is not None:
        names = [each["class_name"] for each in det["instances"]]
        found = {
            "n_coco_instances": len(names),
            "coco_instance_diversity": len(set(names)),
            "n_humans": names.count("person"),
        }
    if masks is not None:
        found["n_sam_instances"] = int((np.unique(masks) > 0).sum())
    return found


def _scene(sample: Sample) -> dict[str, int | float]:
    classes, normals, depth = (sample.get(each) for each in ("semseg_coco", "normal", "depth"))
    found: dict[str, int | float] = {}
    if classes is not None:
        found |= semantics(classes)
    if normals is not None:
        found["geometric_complexity"] = geometric_complexity(normals)
    if depth is not None:
        found["occlusion_score"] = occlusion_score(depth)
    return found


def _scores(sample: Sample) -> dict[str, float]:
    """What the corpus says, as far as it is a number."""
    source = sample.get("source") or {}
    texts = {name: str(source.get(column, "")) for name, column in _SCORES.items()}
    return {name: float(text) for name, text in texts.items() if _NUMBER.fullmatch(text)}


def appearance(rgb: UInt8[np.ndarray, "H W 3"]) -> dict[str, float]:
    """Brightness, contrast and saturation in grey levels, 0..255; entropy in bits."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    counts = np.bincount(grey.ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    colourfulness = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(
        red_green.mean(), yellow_blue.mean()
    )
    values = {
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "saturation": saturation.mean(),
        "colorfulness": colourfulness,
        "entropy": -(shares * np.log2(shares)).sum(),
    }
    return {name: round(float(value), 3) + 0.0 for name, value in values.items()}  # no -0.0


LABELER = Metadata
