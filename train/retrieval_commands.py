"""The verbs of retrieval: any modality finds samples by any other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError, SnapshotError
from fourmill.manifests.labels import Label
from fourmill.train.progress import counting, say, write_json

if TYPE_CHECKING:
    from PIL import Image

    from fourmill.train.conditions import Conditions
    from fourmill.train.given import Given
    from fourmill.train.retrieval import Failed, Index, Quality
    from fourmill.train.sampler import Sampler

_SAMPLES_OF_MEANS = 128
_NAMED = 10  # failures that are told one by one; JSON has all

From = Annotated[tuple[str, ...], arg(name="from")]


def index(
    model: Positional[str],
    root: Positional[str],
    out: Path,
    from_: From = ("rgb",),
    feature: str | None = None,
    split: str | None = None,
    lists: int | None = None,
    batch_size: int = 32,
    tokenizers: Path | None = None,
    weights: Literal["model", "average"] = "model",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    json: bool = False,
) -> None:
    """An index of a dataset by a feature that the model predicts of every sample.

    Samples with a file that cannot be read are left out, and named in the report, in `index.json`
    and in what `--json` prints.

    Examples: `fourmill retrieve index demo/work/builtin/run demo/work/builtin/dataset --out idx
    --feature vit_s_focus`, `fourmill retrieve index EPFL-VILAB/4M-21_B data/mine --out idx --from
    depth caption --feature dinov2_global --tokenizers data/tokenizers`.

    Args:
        model: a run, its YAML file, a checkpoint, a safetensors file, or a hub's id.
        root: the dataset.
        out: folder of the index; one that is there is replaced when the new one is complete.
        from_: what the feature is predicted from: modalities that the model sees.
        feature: what is compared: a target of vectors (the default, where there is one), a map of
            features, of which the mean is taken, or `encoder`, the mean of what the encoder makes.
        split: train or val; by default all samples.
        lists: cells of an inverted file; 0 compares all vectors; by default cells are made for
            more than 200,000 samples.
        batch_size: samples that are predicted at once.
        tokenizers: folder of the tokenizers; by default those of the run.
        weights: average for the averages that a run with `ema` keeps.
        device: cpu, cuda, cuda:1; auto: a GPU if there is one.
        dtype: of activations.
        json: print what was done as JSON.
    """
    from fourmill.train.features import centred, choose_feature, identity
    from fourmill.train.retrieval import About, build_index, kind_of, refuse_other_folder
    from fourmill.train.sampler import Sampler

    refuse_other_folder(out)
    dataset = Dataset.open(root)
    sampler = Sampler.load(model, tokenizers, device, dtype, weights)
    chosen = choose_feature(sampler, feature)
    names = _inputs(sampler, from_)
    about = About(
        model=identity(sampler, chosen), feature=chosen, inputs=tuple(names), root=root,
        snapshot=dataset.head.id, split=split,
    )  # fmt: skip
    total = _count(dataset, split)
    means = _means(sampler, dataset, names, chosen, split, batch_size)
    failed: list[Failed] = []
    with counting("indexing", total) as report:
        vectors = _vectors(
            sampler, dataset, names, chosen, split, batch_size, report, failed.append
        )
        mean = means[kind_of(names)]
        moved = ((keys, centred(each, mean)) for keys, each in vectors)
        made = build_index(out, about, moved, total, means, lists, failed).about
    _tell_failed(failed)
    if made.skipped:
        say(f"left out {made.skipped} samples that lack one of {', '.join(names)}")
    if json:
        write_json(made.model_dump(mode="json"))
        return
    how = f"searched by {made.lists} cells" if made.lists else "all compared"
    say(f"wrote {out}: {made.samples} samples by {chosen} from {', '.join(names)}, {how}")


def search(
    model: Positional[str],
    index: Positional[Path],
    text: str | None = None,
    image: Path | None = None,
    key: str | None = None,
    from_: From = (),
    k: Annotated[int, arg(aliases=["-k"])] = 5,
    show: tuple[str, ...] = (),
    panel: Path | None = None,
    evaluate: bool = False,
    split: str | None = None,
    root: str | None = None,
    batch_size: int = 32,
    tokenizers: Path | None = None,
    weights: Literal["model", "average"] = "model",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    json: bool = False,
) -> None:
    """The samples of an index that are nearest to a text, a picture, or any modality of a sample.

    Examples: `fourmill retrieve search demo/work/builtin/run idx --text "a cup of coffee"`,
    `fourmill retrieve search demo/work/builtin/run idx --image photo.jpg --panel nearest.png`,
    `fourmill retrieve search demo/work/builtin/run idx --key chelsea --from depth --k 3`,
    `fourmill retrieve search demo/work/builtin/run idx --evaluate --from caption --split val`.

    Args:
        model: the one that the index was made with.
        index: its folder.
        text: what is looked for, in words.
        image: what is looked for, a picture.
        key: what is looked for, a sample of the dataset.
        from_: modalities of that sample; by default what the index was made from.
        k: how many are found.
        show: modalities that the panel shows of what is found, beside the picture.
        panel: a picture of what is found.
        evaluate: instead, measure how well all samples of a split find themselves by `--from`.
        split: of these samples; by default that of the index.
        root: where the dataset is now; by default where it was when the index was made.
        batch_size: samples that are predicted at once.
        tokenizers: folder of the tokenizers; by default those of the run.
        weights: average for the averages that a run with `ema` keeps.
        device: cpu, cuda, cuda:1; auto: a GPU if there is one.
        dtype: of activations.
        json: print what was found as JSON.
    """
    from fourmill.manifests.render import refuse_no_picture
    from fourmill.train.features import centred, features, identity
    from fourmill.train.retrieval import Index, quality
    from fourmill.train.sampler import Sampler

    if sum(each is not None for each in (text, image, key)) != (not evaluate):
        raise ConfigError("give one of --text, --image and --key, or --evaluate alone")
    if k < 1:
        raise ConfigError(f"--k {k}: expected at least 1")
    opened = Index(index)
    if panel is not None:
        refuse_no_picture(panel)
    sampler = Sampler.load(model, tokenizers, device, dtype, weights)
    about = opened.about
    if about.feature not in (*sampler.domains.targets, "encoder") or (
        identity(sampler, about.feature) != about.model
    ):
        raise ConfigError(
            f"{index}: was made by another model than {model}, or with another tokenizer: vectors "
            f"of two models cannot be compared: make it again, or search with the model of then"
        )
    names = _inputs(sampler, from_ or about.inputs)
    if evaluate:
        dataset = _dataset(opened, root)
        chosen = split or about.split
        failed: list[Failed] = []
        with counting("searching", _count(dataset, chosen)) as report:
            vectors = _vectors(
                sampler, dataset, names, about.feature, chosen, batch_size, report, failed.append
            )
            mean = opened.mean(names)
            found = quality(opened, ((keys, centred(each, mean)) for keys, each in vectors))
        _tell_failed(failed)
        _tell_quality(found, failed, names, about.inputs, json)
        return
    labels, number = _query(sampler, opened, root, names, text, image, key)
    vector = features(sampler, sampler.conditions(1, labels, [number]), about.feature)
    kind = [sampler.resolve(name) for name in labels]
    nearest = opened.search(centred(vector, opened.mean(kind)), k)
    results = [
        {"key": opened.keys[row], "score": round(float(score), 6)}
        for row, score in zip(nearest.rows[0], nearest.scores[0], strict=True)
        if row >= 0
    ]
    if panel is not None:
        dataset = _dataset(opened, root)
        panel.parent.mkdir(parents=True, exist_ok=True)
        _draw(sampler, dataset, labels, [str(each["key"]) for each in results], show).save(panel)
        say(f"wrote {panel}")
    if json:
        write_json({"index": str(index), "feature": about.feature, "results": results})
        return
    for place, each in enumerate(results, 1):
        say(f"{place:>4}  {each['score']:.3f}  {each['key']}")


def _inputs(sampler: "Sampler", names: Sequence[str]) -> list[str]:
    if not names:
        raise ConfigError("--from: name at least one modality")
    return list(dict.fromkeys(sampler.resolve(name) for name in names))


def _count(dataset: Dataset, split: str | None) -> int:
    samples = dataset.shard_column(next(iter(dataset.modalities)), "samples")
    return sum(samples[shard] for shard in dataset.shard_indices(split))


def _vectors(
    sampler: "Sampler",
    dataset: Dataset,
    names: Sequence[str],
    feature: str,
    split: str | None,
    batch_size: int,
    report: Callable[[int], None],
    fail: Callable[["Failed"], None],
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Keys and features of all samples that have every input; `fail` is told of those with one that
    cannot be used."""
    from fourmill.train.features import features
    from fourmill.train.given import read_samples
    from fourmill.train.retrieval import Failed

    def fail_by(key: str, error: SampleError) -> None:
        fail(Failed(key=key, stage=error.stage, reason=error.reason))

    for batch in read_samples(sampler, dataset, names, split, batch_size):
        for key, error in batch.failed.items():
            fail_by(key, error)
        for part, conditions in _conditions(sampler, batch.whole(), fail_by):
            yield part.keys, features(sampler, conditions, feature)
        report(len(batch.keys))


def _conditions(
    sampler: "Sampler", given: "Given", fail: Callable[[str, SampleError], None]
) -> Iterator[tuple["Given", "Conditions"]]:
    """Some samples as the model takes them: together, or one by one if one of them cannot be."""
    if not given.keys:
        return
    try:
        yield given, sampler.conditions(len(given.keys), given.labels, given.rows)
    except SampleError as error:
        if len(given.keys) == 1:
            fail(given.keys[0], error)
            return
        for place in range(len(given.keys)):
            yield from _conditions(sampler, given.some([place]), fail)


def _means(
    sampler: "Sampler",
    dataset: Dataset,
    names: Sequence[str],
    feature: str,
    split: str | None,
    batch_size: int,
) -> dict[str, NDArray[np.float32]]:
    """Mean features of the first samples, by what they are predicted from: what the index is made
    from, and each input that a query may be of."""
    from fourmill.train.given import available
    from fourmill.train.retrieval import kind_of

    others = [[name] for name in available(sampler, dataset, sampler.domains.inputs)]
    kinds = {kind_of(each): each for each in [list(names), *others]}
    means = {}
    failed: list[Failed] = []
    with counting("means", len(kinds) * min(_SAMPLES_OF_MEANS, _count(dataset, split))) as report:
        for kind, inputs in kinds.items():
            found: list[NDArray[np.float32]] = []
            for _, vectors in _vectors(
                sampler, dataset, inputs, feature, split, batch_size, report, failed.append
            ):
                found.append(vectors)
                if sum(map(len, found)) >= _SAMPLES_OF_MEANS:
                    break
            if found:
                means[kind] = np.concatenate(found).mean(0)
    if kind_of(names) not in means:
        why = f"; {failed[0].key}: {failed[0].stage}: {failed[0].reason}" if failed else ""
        raise ConfigError(f"{dataset.url}: no sample has all of {', '.join(names)}{why}")
    return means


def _query(
    sampler: "Sampler",
    opened: "Index",
    root: str | None,
    names: Sequence[str],
    text: str | None,
    image: Path | None,
    key: str | None,
) -> tuple[Mapping[str, Sequence[Label | None]], int]:
    """What is looked for, and the number of its sample."""
    from fourmill.train.given import find_samples, read_photo, read_text

    if text is not None:
        return {"caption": [read_text(text)]}, 0
    if image is not None:
        return {"rgb": [read_photo(image)]}, 0
    assert key is not None
    given = find_samples(sampler, _dataset(opened, root), names, [key])
    for name, labels in given.labels.items():
        if labels[0] is None:
            raise ConfigError(f"{key}: this sample has no {name}")
    return given.labels, given.rows[0]


def _dataset(opened: "Index", root: str | None) -> Dataset:
    """The dataset of an index as it was then."""
    about = opened.about
    dataset = Dataset.open(root or about.root)
    try:
        return dataset.at(about.snapshot)
    except SnapshotError as error:
        raise ConfigError(
            f"{opened.folder}: is of the snapshot {about.snapshot}, which {dataset.url} does not "
            f"have (any more): make the index again"
        ) from error


def _draw(
    sampler: "Sampler",
    dataset: Dataset,
    query: Mapping[str, Sequence[Label | None]],
    keys: Sequence[str],
    show: Sequence[str],
) -> "Image.Image":
    from fourmill.manifests.render import render, sheet
    from fourmill.train.given import locate
    from fourmill.train.panels import picture

    size = 160
    places = locate(dataset, "rgb", keys)
    blank = np.full((size, size, 3), 255, np.uint8)
    asked = [picture(sampler, name, labels[0], size) for name, labels in query.items()]
    names = ["rgb", *show]
    rows = []
    for number in range(max(len(names), len(asked))):
        row: list[NDArray[np.uint8]] = [asked[number] if number < len(asked) else blank]
        for shard, place, _ in places:
            if number >= len(names):
                row.append(blank)
                continue
            photo = dataset.shard("rgb", shard).label(place)
            found = dataset.shard(names[number], shard)
            image = photo if isinstance(photo, np.ndarray) else None
            row.append(render(found.entry.definition, found.label(place), size, image))
        rows.append(row)
    titles = [names[row] if row < len(names) else "" for row in range(len(rows))]
    columns = [f"looked for: {', '.join(query)}", *keys]
    return sheet(rows, columns, titles, "The nearest samples, from left to right")


def _tell_failed(failed: Sequence["Failed"]) -> None:
    for each in failed[:_NAMED]:
        say(f"left out {each.key}: {each.stage}: {each.reason}")
    if len(failed) > _NAMED:
        say(f"left out {len(failed) - _NAMED} more samples that cannot be read: --json names all")


def _tell_quality(
    found: "Quality", failed: Sequence["Failed"], names: Sequence[str], of: Sequence[str],
    json: bool,
) -> None:  # fmt: skip
    chance = {k: min(1.0, k / found.samples) for k in found.recall}
    if json:
        recall = {f"recall@{k}": round(each, 6) for k, each in found.recall.items()}
        write_json(
            {
                "from": list(names), "to": list(of), "queries": found.queries,
                "samples": found.samples, "failed": [each.model_dump() for each in failed],
                **recall, "median_rank": found.median_rank,
                "guessed": {f"recall@{k}": round(each, 6) for k, each in chance.items()}
                | {"median_rank": (found.samples + 1) / 2},
            }
        )  # fmt: skip
        return
    say(f"{found.queries} samples by {', '.join(names)} among {found.samples} by {', '.join(of)}")
    for k, each in found.recall.items():
        say(f"{f'recall@{k}':>12}  {each:6.1%}  (guessing {chance[k]:.1%})")
    say(f"{'median rank':>12}  {found.median_rank:g}  (guessing {(found.samples + 1) / 2:g})")
