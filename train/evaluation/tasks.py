"""What is to be predicted, from what, and beside which labels it is put."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.train.evaluation.classes import ClassMetric
from fourmill.train.predict import pixel_inputs
from fourmill.train.sampler import Sampler

_REFERENCES = frozenset({Kind.TEXT, Kind.STRUCTURE})  # what captions may be compared with


@dataclass(frozen=True)
class Task:
    """One modality to predict.

    Attributes:
        name: what it is called in the report: that of the stored modality.
        target: the model's modality.
        predicted: definition of what the tokens decode to.
        truth: definition of the labels that it is compared with, as the dataset has them.
        side: of the crop: pixels, or cells of a feature map; 0 of what lies in no plane.
        inputs: what the model is given: its own modality → that of the dataset.
    """

    name: str
    target: str
    predicted: Modality
    truth: Modality
    side: int
    inputs: Mapping[str, str]


def plan_tasks(
    sampler: Sampler,
    dataset: Dataset,
    asked: Sequence[str] = (),
    inputs: Sequence[str] = (),
    truths: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> list[Task]:
    """The tasks of an evaluation.

    Args:
        asked: modalities, by their own name or that of their tokens; by default all targets that
            can be decoded and whose labels the dataset has.
        inputs: what the model is given; by default pixels.
        truths: by task, the dataset's modality that it is compared with; by default its own, or
            else `truth_…` of it.
        ignored: classes of truths that do not count.

    Raises:
        UnknownNameError: a modality that the model, or the dataset, does not have.
        ConfigError: a truth of another kind or of other classes, no tokenizer, nothing to evaluate.
    """
    truths = dict(truths or {})
    given = _inputs(sampler, dataset, inputs)
    if asked:
        targets = [sampler.resolve(each, target=True) for each in asked]
    else:
        targets = _possible(sampler, dataset, given, truths)
    if len(set(targets)) < len(targets):
        raise ConfigError(f"a task is named twice: {', '.join(asked)}")
    known = {sampler.stored(each).name for each in targets} | {*targets, *asked}
    for each in truths:
        if each not in known:
            raise UnknownNameError("task that --truth could be for", each, known)
    names = dict(zip(targets, asked or targets, strict=True))
    return [
        _task(sampler, dataset, target, names[target], given, truths, ignored)
        for target in targets
    ]  # fmt: skip


def _task(
    sampler: Sampler,
    dataset: Dataset,
    target: str,
    asked: str,
    given: Mapping[str, str],
    truths: Mapping[str, str],
    ignored: Sequence[str],
) -> Task:
    if target not in sampler.tokenizers:
        raise ConfigError(
            f"{target}: no tokenizer is at hand, so nothing can be compared but tokens; give the "
            f"folder that has one with --tokenizers"
        )
    predicted, tokens = sampler.stored(target), sampler.domains.modality(target)
    chosen = next((truths[n] for n in (asked, predicted.name, target) if n in truths), None)
    name = chosen or _own_truth(dataset, predicted.name)
    if name not in dataset.modalities:
        raise _lacking(dataset, predicted, name)
    if name in given.values() and predicted.name == name:
        raise ConfigError(f"{name} is given to the model: it cannot be a task as well")
    truth = dataset.modalities[name].definition
    _refuse_other_kinds(predicted, truth)
    if predicted.kind is Kind.CLASSES:
        ClassMetric(truth, predicted, ignored)
    side = tokens.grid[0] if predicted.kind is Kind.FEATURE_MAP else tokens.input_size
    inputs = {each: own for each, own in given.items() if each != target}
    return Task(
        predicted.name, target, predicted, truth, side if predicted.kind.is_dense else 0, inputs
    )


def _possible(
    sampler: Sampler, dataset: Dataset, given: Mapping[str, str], truths: Mapping[str, str]
) -> list[str]:
    """Targets that can be decoded and compared with what the dataset has; of one modality in
    several sizes the smallest."""
    if not sampler.tokenizers:
        raise ConfigError(
            "no tokenizers are at hand, so nothing can be decoded: give their folder with "
            "--tokenizers"
        )
    found: dict[str, list[str]] = {}
    for name in sampler.domains.targets:
        if name not in sampler.tokenizers or name in given:
            continue
        stored = sampler.stored(name)
        is_there = stored.name in truths or name in truths
        is_there = is_there or _own_truth(dataset, stored.name) in dataset.modalities
        has_decoder = sampler.tokenizers[name].spec.kind != "vq-encoder"
        if is_there and has_decoder and stored.name not in given.values():
            found.setdefault(stored.name, []).append(name)
    if not found:
        have = ", ".join(sorted(dataset.modalities))
        raise ConfigError(
            f"nothing to evaluate: of the model's targets ({', '.join(sampler.domains.targets)}) "
            f"none has a tokenizer with a decoder and labels in {dataset.url}, which has {have}"
        )
    sizes = {each.name: each.input_size for each in sampler.domains.modalities}
    return [min(names, key=lambda name: (sizes[name], name)) for names in found.values()]


def _inputs(sampler: Sampler, dataset: Dataset, asked: Sequence[str]) -> dict[str, str]:
    """By the model's modality, the dataset's."""
    domains = sampler.domains
    chosen = [sampler.resolve(each) for each in asked]
    if not asked:
        by_size = sorted(pixel_inputs(domains), key=lambda n: domains.modality(n).input_size)
        chosen = by_size[:1]
    if not chosen:
        raise ConfigError(
            f"the model takes no pixels: name what it is given with --inputs; it knows "
            f"{', '.join(domains.inputs)}"
        )
    found = {}
    for name in chosen:
        definition = domains.modality(name)
        own = sampler.stored(name).name if name in sampler.tokenizers else definition.folder
        if own not in dataset.modalities and name in dataset.modalities:
            own = name  # tokens are there, if not what they were made of
        if own not in dataset.modalities:
            raise UnknownNameError(f"modality in {dataset.url}", own, dataset.modalities)
        found[name] = own
    return found


def _own_truth(dataset: Dataset, name: str) -> str:
    """The dataset's labels of a modality, or what people measured of it where it has no others."""
    measured = f"truth_{name}"
    has_others = name in dataset.modalities or measured not in dataset.modalities
    return name if has_others else measured


def _lacking(dataset: Dataset, predicted: Modality, name: str) -> ConfigError:
    have = dataset.modalities
    same = sorted(n for n, entry in have.items() if entry.definition.kind is predicted.kind)
    remedy = (
        f"--truth {predicted.name}={same[0]} compares with what it has of that kind"
        if same
        else "nothing there is of that kind"
    )
    return ConfigError(
        f"{dataset.url} has no {name} to compare {predicted.name} with; it has "
        f"{', '.join(sorted(have))}: {remedy}"
    )


def _refuse_other_kinds(predicted: Modality, truth: Modality) -> None:
    is_reference = predicted.kind is Kind.TEXT and truth.kind in _REFERENCES
    if predicted.kind is not truth.kind and not is_reference:
        raise ConfigError(
            f"{predicted.name} is {predicted.kind.value}, {truth.name} is {truth.kind.value}: only "
            f"labels of one kind can be compared"
        )
    if predicted.channels != truth.channels and predicted.kind in (Kind.VECTOR, Kind.FEATURE_MAP):
        raise ConfigError(
            f"{predicted.name} has {predicted.channels} numbers, {truth.name} {truth.channels}: "
            f"features of two networks cannot be compared"
        )
