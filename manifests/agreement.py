"""How far two experts agree on one sample, in the measures proper to each kind of modality.

No measure takes either side for the truth, though depth is fitted to the first. All but angles and
errors are shares or correlations: 1 is full agreement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests import dense_agreement as dense
from fourmill.manifests import listed_agreement as listed
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Modality

Measures: TypeAlias = Mapping[str, float]
"""By name; NaN where a sample does not tell, such as the correlation of a constant."""

HEADLINES: Mapping[Kind, str] = {
    Kind.IMAGE: "equal_share",
    Kind.DEPTH: "rank_correlation",
    Kind.NORMAL: "within_30_degrees",
    Kind.EDGE: "f1",
    Kind.PLANE: "within_5_percent",
    Kind.CLASSES: "agreement",
    Kind.INSTANCES: "f1",
    Kind.FEATURE_MAP: "cosine",
    Kind.VECTOR: "cosine",
    Kind.SEQUENCE: "cosine",
    Kind.TEXT: "word_overlap",
    Kind.BOXES: "f1",
    Kind.STRUCTURE: "equal_share",
    Kind.CROPS: "equal_share",
    Kind.TOKENS: "equal_share",
}
"""The measure that samples are ordered by, and that `agreement(…)` of a mark means."""


@dataclass(frozen=True)
class Comparison:
    """Two labels of one sample.

    Attributes:
        measures: of this sample.
        tallies: counts that are added up over samples, for what is measured over all together.
    """

    measures: Measures
    tallies: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


def compare(before: Modality, one: Label, after: Modality, other: Label) -> Comparison:
    """How far two labels of one sample agree.

    Args:
        before, after: the definitions that the labels follow; of one kind.

    Raises:
        ConfigError: labels that cannot be compared: other kinds, channels, or counts of tokens.
    """
    refuse_other_kinds(before, after)
    if before.kind is Kind.CLASSES:
        one_index, other_index = dense.common_classes(before, _array(one), after, _array(other))
        confusion = dense.confusion(one_index, other_index)
        return Comparison(dense.classes(confusion), {"confusion": confusion})
    if before.kind is Kind.BOXES:
        counts = listed.match_boxes(one, other)
        return Comparison(listed.matched(counts), {"boxes": counts})
    if before.value_range is not None:
        return Comparison(dense.planes(_array(one), _array(other), before.value_range))
    return Comparison(_MEASURES[before.kind](one, other))


def refuse_other_kinds(before: Modality, after: Modality) -> None:
    """Complain about modalities whose labels have nothing in common.

    Raises:
        ConfigError: it names both kinds.
    """
    if before.kind is not after.kind:
        raise ConfigError(
            f"{before.name} is {before.kind.value}, {after.name} is {after.kind.value}: only "
            f"labels of one kind can be compared"
        )
    if before.unit != after.unit:
        raise ConfigError(
            f"{before.name} is in {before.unit or 'no unit'}, {after.name} in "
            f"{after.unit or 'no unit'}: only numbers of one unit can be compared"
        )


def over_all(kind: Kind, tallies: Mapping[str, NDArray[np.int64]]) -> Measures:
    """What is measured over all samples together: `mean_iou` of classes, `f1` of boxes."""
    if kind is Kind.CLASSES and "confusion" in tallies:
        return dense.classes(tallies["confusion"])
    if kind is Kind.BOXES and "boxes" in tallies:
        return listed.matched(tallies["boxes"])
    return {}


def _array(label: Label) -> NDArray[Any]:
    assert isinstance(label, np.ndarray)
    return label


def _on_arrays(measure: Callable[[NDArray[Any], NDArray[Any]], Measures]) -> "_Measure":
    return lambda one, other: measure(_array(one), _array(other))


_Measure: TypeAlias = Callable[[Label, Label], Measures]

_MEASURES: Mapping[Kind, _Measure] = {
    Kind.IMAGE: _on_arrays(dense.images),
    Kind.DEPTH: _on_arrays(dense.depths),
    Kind.NORMAL: _on_arrays(dense.normals),
    Kind.EDGE: _on_arrays(dense.edges),
    Kind.INSTANCES: _on_arrays(dense.instances),
    Kind.FEATURE_MAP: _on_arrays(dense.features),
    Kind.VECTOR: _on_arrays(dense.vectors),
    Kind.SEQUENCE: _on_arrays(dense.sequences),
    Kind.TEXT: listed.texts,
    Kind.STRUCTURE: listed.structures,
    Kind.CROPS: _on_arrays(listed.numbers),
    Kind.TOKENS: _on_arrays(listed.numbers),
}
