"""Published figures of tasks whose protocol is known, to stand beside ours.

Only of the same data set, split and protocol are they comparable; each says which.
"""

from dataclasses import dataclass
from typing import TypeAlias

from fourmill.manifests.modalities import Kind

FOURM_21 = "4M-21, Table 1 (Bachmann et al. 2024)"
_SINGLE = "4M-21, Table 5 (Bachmann et al. 2024)"


@dataclass(frozen=True)
class Figure:
    """One published value.

    Attributes:
        metric: of ours that it is a value of.
        data: the set that it was measured on.
        how: what else decides it.
    """

    kind: Kind
    metric: str
    model: str
    value: float
    data: str
    source: str
    how: str = ""


_Values: TypeAlias = dict[str, float]


def _figures(
    kind: Kind, metric: str, values: _Values, data: str, source: str, how: str = ""
) -> list[Figure]:
    return [
        Figure(kind, metric, model, value, data, source, how) for model, value in values.items()
    ]


_NORMALS: _Values = {
    "4M-7 B": 21.9, "4M-7 L": 21.5, "4M-7 XL": 20.6,
    "4M-21 B": 21.7, "4M-21 L": 21.1, "4M-21 XL": 20.8,
    "Unified-IO XL": 31.0, "Unified-IO 2 XXL": 37.4, "Omnidata (pseudo-labels)": 22.5,
    "tokenizer bound": 4.0,
}  # fmt: skip
_NORMALS_OF_ONE: _Values = {"4M-21 B": 22.3, "4M-21 L": 21.7, "4M-21 XL": 21.3}
_DEPTH: _Values = {
    "4M-7 B": 0.71, "4M-7 L": 0.69, "4M-7 XL": 0.69,
    "4M-21 B": 0.71, "4M-21 L": 0.69, "4M-21 XL": 0.68,
    "Unified-IO XL": 0.82, "Unified-IO 2 XXL": 0.84, "Omnidata (pseudo-labels)": 0.68,
    "tokenizer bound": 0.06,
}  # fmt: skip
_SEMSEG: _Values = {
    "4M-7 B": 43.3, "4M-7 L": 47.2, "4M-7 XL": 48.1,
    "4M-21 B": 42.5, "4M-21 L": 46.4, "4M-21 XL": 48.1,
    "Unified-IO XL": 44.3, "Unified-IO 2 XXL": 41.7, "Mask2Former B (pseudo-labels)": 45.7,
    "tokenizer bound": 90.5,
}  # fmt: skip
_SEMSEG_OF_ONE: _Values = {"4M-21 B": 39.0, "4M-21 L": 43.8, "4M-21 XL": 46.5}
_TOP1: _Values = {
    "4M-21 B": 73.1, "4M-21 L": 77.0, "4M-21 XL": 78.3, "DINOv2 B (pseudo-labels)": 82.1,
    "tokenizer bound": 80.2,
}  # fmt: skip
_TOP5: _Values = {
    "4M-21 B": 89.7, "4M-21 L": 91.9, "4M-21 XL": 92.4, "DINOv2 B (pseudo-labels)": 93.9,
    "tokenizer bound": 93.0,
}  # fmt: skip


def _percent(values: _Values) -> _Values:
    """Shares, as our metrics have them."""
    return {name: round(value / 100, 4) for name, value in values.items()}


_OF_TEN, _OF_ONE = "ensemble of 10", "single sample"
PUBLISHED: tuple[Figure, ...] = (
    *_figures(Kind.NORMAL, "mean_degrees", _NORMALS, "DIODE", FOURM_21, _OF_TEN),
    *_figures(Kind.NORMAL, "mean_degrees", _NORMALS_OF_ONE, "DIODE", _SINGLE, _OF_ONE),
    *_figures(
        Kind.DEPTH, "l1", _DEPTH, "DIODE", FOURM_21, "how depth is standardised is not printed"
    ),
    *_figures(Kind.CLASSES, "mean_iou", _percent(_SEMSEG), "COCO", FOURM_21, _OF_TEN),
    *_figures(Kind.CLASSES, "mean_iou", _percent(_SEMSEG_OF_ONE), "COCO", _SINGLE, _OF_ONE),
    *_figures(
        Kind.VECTOR, "knn_top1", _percent(_TOP1), "ImageNet-1K", FOURM_21, "DINOv2 features, k 20"
    ),
    *_figures(
        Kind.VECTOR, "knn_top5", _percent(_TOP5), "ImageNet-1K", FOURM_21, "DINOv2 features, k 20"
    ),
)


def published(kind: Kind, metrics: set[str]) -> list[Figure]:
    """Figures of a kind of modality, of the metrics that there are."""
    return [each for each in PUBLISHED if each.kind is kind and each.metric in metrics]
