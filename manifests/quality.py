"""Whether the labels of a version look like an expert's work, judged by their statistics alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.modalities import Kind, Masking
from fourmill.manifests.snapshots import VersionEntry
from fourmill.manifests.summaries import Summary, merge, used_share
from fourmill.manifests.tables import ShardTable

_ENOUGH = 8  # labels that say something about an expert
_MANY_FAILED = 0.2
_MANY_CONSTANT = 0.5
_MANY_EMPTY = 0.9
_FEW_CODES = 0.02
_ENOUGH_TOKENS = 10  # in vocabularies, before unused ids say something
_ENOUGH_SHARDS = 4
_FAR = 0.25  # of labels or values that would have to change bins
_TIMES_USUAL = 3.0
_COMPARED = {
    "histogram": "values", "classes": "classes", "counts": "numbers of entries", "scores": "scores",
}  # fmt: skip
_NUMERIC = (
    Kind.IMAGE, Kind.DEPTH, Kind.NORMAL, Kind.EDGE, Kind.PLANE, Kind.FEATURE_MAP, Kind.VECTOR,
    Kind.SEQUENCE,
)  # fmt: skip
_CONTENT = {
    Kind.BOXES: "boxes", Kind.TEXT: "words", Kind.INSTANCES: "instances", Kind.TOKENS: "tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What is plainly odd about a version or one of its shards.

    Attributes:
        shard: its number, or `None` for the version as a whole.
        what: what was found.
        look: what to look at.
    """

    modality: str
    shard: int | None
    what: str
    look: str


@dataclass(frozen=True)
class Quality:
    """One version: what its shards' statistics say together.

    Attributes:
        failed: share of samples that failed.
        seconds_per_sample: of one worker, with encoding.
        statistics: see `summaries.Summary`; empty if its shards have none.
    """

    entry: VersionEntry
    failed: float
    seconds_per_sample: float
    statistics: Summary
    findings: Sequence[Finding]


@dataclass(frozen=True)
class _Part:
    """A shard or a version: records, how many failed, and what the labels say."""

    samples: int
    failed: int
    summary: Summary


def quality(table: ShardTable, root: str) -> Quality:
    """Statistics of a version, and what is odd about it.

    Args:
        root: of the dataset, for what a finding says to look at.
    """
    # a producer may count whatever it likes; what does not count labels is not ours
    statistics = [each if "labels" in each else {} for each in table.statistics]
    rows = zip(table.column("samples"), table.column("failed"), statistics, strict=True)
    parts = [_Part(*each) for each in rows]
    whole = _Part(
        sum(each.samples for each in parts), sum(each.failed for each in parts), merge(statistics)
    )
    seconds = sum(table.column("seconds"))
    return Quality(
        table.entry,
        whole.failed / max(1, whole.samples),
        seconds / max(1, whole.samples),
        whole.summary,
        list(_findings(table.entry, whole, parts, root)),
    )


def _findings(
    entry: VersionEntry, whole: _Part, parts: Sequence[_Part], root: str
) -> Iterator[Finding]:
    common = _oddities(entry, whole)
    for reason, what in common.items():
        yield Finding(entry.modality, None, what, _look(entry, root, reason, None))
    oddities = {shard: _oddities(entry, part) for shard, part in enumerate(parts)}
    for shard, what in (_badly_decoded(parts) | _different(parts)).items():
        oddities[shard].setdefault("different", what)
    for shard, found in oddities.items():
        for reason, what in found.items():
            if reason not in common:
                yield Finding(entry.modality, shard, what, _look(entry, root, reason, shard))


def _look(entry: VersionEntry, root: str, reason: str, shard: int | None) -> str:
    if reason in ("failed", "nothing", "not finite"):
        return f"fourmill status {root} --failed"
    where = "" if shard is None else f" --shards {shard}"
    if entry.modality == "rgb":
        return f"fourmill view {root} --modalities rgb{where}"
    shown = entry.definition.token_of or entry.modality
    return f"fourmill view {root} --modalities rgb {shown}{where}"


def _oddities(entry: VersionEntry, part: _Part) -> dict[str, str]:
    """What is plainly wrong with a part, by reason; nothing for what has no statistics."""
    summary, found = part.summary, dict[str, str]()
    labels = summary.get("labels")
    if labels is None or not part.samples:
        return found
    if not labels and not _is_truth(entry):
        found["nothing"] = f"none of {part.samples} samples has a label"
    elif part.failed > _MANY_FAILED * part.samples:
        found["failed"] = f"{part.failed} of {part.samples} samples failed"
    if summary.get("not_finite"):
        share = summary["not_finite"] / summary["values"]
        found["not finite"] = f"{share:.1%} of the values are not finite (NaN or infinite)"
    if labels >= _ENOUGH:
        found |= _alike(entry, summary, labels)
    return found


def _alike(entry: VersionEntry, summary: Summary, labels: int) -> dict[str, str]:
    found = {}
    most = max(summary.get("distinct", {"": 0}).values())
    classes = summary.get("classes", {})
    if most == labels:
        found["same"] = f"all {labels} labels are the same"
    elif summary.get("constant", 0) > _MANY_CONSTANT * labels:
        found["constant"] = f"{summary['constant']} of {labels} labels are one value throughout"
    elif entry.definition.kind in _NUMERIC and _bins_used(entry, summary) == 1:
        found["one value"] = "nearly all values are one and the same"
    if len(classes) == 1 and sum(classes.values()) >= _ENOUGH:
        found["one class"] = f"there is only one class: {next(iter(classes))}"
    if summary.get("empty", 0) > _MANY_EMPTY * labels:
        content = _CONTENT.get(entry.definition.kind, "entries")
        found["empty"] = f"{summary['empty']} of {labels} labels have no {content}"
    if np.count_nonzero(summary.get("scores", [])) == 1 and sum(summary["scores"]) >= _ENOUGH:
        found["scores"] = "all scores are alike"
    if _has_collapsed(entry, summary, labels):
        share = used_share(summary, entry.definition)
        found["codes"] = f"only {share:.1%} of the vocabulary is used: the tokenizer has collapsed"
    return found


def _bins_used(entry: VersionEntry, summary: Summary) -> int:
    """Bins that hold more than next to nothing, of the component that uses most of them."""
    bins = np.array(summary["histogram"])
    rows = bins.reshape(3 if entry.definition.kind is Kind.NORMAL else 1, -1)
    return int((rows > 0.001 * rows.sum(axis=1, keepdims=True)).sum(axis=1).max())


def _has_collapsed(entry: VersionEntry, summary: Summary, labels: int) -> bool:
    definition = entry.definition
    if definition.masking is not Masking.IMAGE or "used" not in summary:
        return False
    is_enough = sum(summary["histogram"]) >= _ENOUGH_TOKENS * definition.vocab_size
    return is_enough and used_share(summary, definition) < _FEW_CODES


def _is_truth(entry: VersionEntry) -> bool:
    """Whether it may well be that only some samples have this: a corpus brought it."""
    return not entry.sources


def _different(parts: Sequence[_Part]) -> dict[int, str]:
    """Shards whose labels are far from those of all others, farther than shards usually are."""
    full = [shard for shard, each in enumerate(parts) if each.summary.get("labels", 0) >= _ENOUGH]
    if len(full) < _ENOUGH_SHARDS:
        return {}
    found: dict[int, str] = {}
    for name, spoken in _COMPARED.items():
        rows = _matrix([parts[shard].summary.get(name, {}) for shard in full])
        distances = _distances(rows)
        far = max(_FAR, _TIMES_USUAL * float(np.median(distances)))
        for shard, distance in zip(full, distances.tolist(), strict=True):
            if distance > far:
                found.setdefault(shard, f"its {spoken} differ from other shards' by {distance:.0%}")
    return found


def _badly_decoded(parts: Sequence[_Part]) -> dict[int, str]:
    """Shards whose tokens decode to what is much farther from the labels than in all others."""
    errors = {
        shard: decoding_error(each.summary)
        for shard, each in enumerate(parts)
        if each.summary.get("decoded")
    }
    if len(errors) < _ENOUGH_SHARDS:
        return {}
    usual = float(np.median(list(errors.values())))
    return {
        shard: f"what its tokens decode to is off by {each:.4g}, in most shards by {usual:.4g}"
        for shard, each in errors.items()
        if each > _TIMES_USUAL * usual
    }


def decoding_error(summary: Mapping[str, Any]) -> float:
    """Mean of how far decoded tokens are from what was tokenized; see `tokenize/verify.py`."""
    found = summary["decoded"]
    return float(found["millionths"] / found["labels"] / 1e6)


def _matrix(counts: Sequence[Mapping[str, int] | Sequence[int]]) -> NDArray[np.float64]:
    """Counts as rows, `[shards, bins]`."""
    named = [
        dict(each) if isinstance(each, Mapping)
        else {str(place): count for place, count in enumerate(each)}
        for each in counts
    ]  # fmt: skip
    names = sorted({name for each in named for name in each})
    return np.array([[each.get(name, 0) for name in names] for each in named], np.float64)


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of each row would have to change bins to be spread as the middle one, 0 to 1.

    The middle is taken bin by bin: a mean would lean towards the very shard that is odd.
    """
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.abs(shares - np.median(shares, axis=0)).sum(axis=1) / 2)
