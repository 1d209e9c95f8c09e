"""The whole pipeline from one configuration: ingest, crops, labels, tokenizers, tokens.

Every stage looks at what is there and does only what is missing or stale; when nothing is, it
starts neither Ray nor a network. Features that are only needed as tokens are tokenized where they
are made, so their tokenizers are trained first, on a few samples.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import modality
from fourmill.pipeline import ingest as ingesting
from fourmill.pipeline.admission import Treatment
from fourmill.pipeline.config import CorpusConfig, ImageTokenizerConfig, RunConfig
from fourmill.pipeline.plan import Plan, plan_wave, waves
from fourmill.pipeline.progress import Steps
from fourmill.pipeline.sources.beside import endings
from fourmill.pipeline.sources.registry import open_source
from fourmill.pipeline.sources.urls import UrlListSource
from fourmill.pipeline.steps import CropStep, LabelStep, Step, TokenizeStep
from fourmill.pipeline.timings import Timings


@dataclass
class Run:
    """One run of the pipeline, and what it did.

    Attributes:
        timings: of what was done; empty if nothing was missing.
    """

    config: RunConfig
    timings: Timings = field(default_factory=Timings)

    def all(self) -> None:
        """Every stage, in order; what is committed stays if one of them fails."""
        with ExitStack() as stack:
            self._stack = stack
            self.ingest()
            self.crops()
            self.train_tokenizers(self._transient_images())
            self.label()
            self.train_tokenizers(self.config.tokenize.images)
            self.tokenize()

    def ingest(self) -> None:
        """Raw corpus → `rgb`, `caption`, `source` and exact labels.

        Raises:
            ConfigError: the root holds another dataset.
            SourceError: a source is not there.
        """
        plan = plan_corpus(self.config.corpus, self.config.root)
        dataset = Dataset.open(self.config.root, create=True)
        if not dataset.is_empty:
            ingesting.refuse_other(dataset, plan)
            refuse_other_definitions(dataset, self.config)
            return
        self._start_ray()
        with (
            self.timings.stage("ingest") as row,
            Steps({"ingest": plan.num_items}, "Reading the corpus") as bars,
        ):

            def note(done: int, failed: int) -> None:
                bars.advance("ingest", done, failed)
                row.items, row.failed = row.items + done, row.failed + failed

            ingesting.ingest(dataset, plan, address=self.config.address, on_progress=note)

    def crops(self) -> None:
        """Crop settings, the same for all modalities of a sample."""
        config = self.config.tokenize
        step = CropStep(config.num_crops, config.seed, config.min_crop_scale)
        self._run_wave([step], "crops", "Drawing crops")

    def label(self) -> None:
        """All labelers, with the tokenizers of what they hand on and do not store."""
        fused = [self._tokenize_step(each) for each in self._transient_images()]
        for wave in waves([*self._label_steps(), *fused]):
            self._run_wave(wave, "label", "Labelling")

    def tokenize(self) -> None:
        """Tokens of everything that is stored."""
        transient = self._transient_images()
        steps = [
            self._tokenize_step(each) for each in self.config.tokenize.images
            if each not in transient
        ]  # fmt: skip
        for name in self.config.tokenize.text.modalities:
            folder = self.config.tokenizers / f"tok_{name}"
            steps.append(TokenizeStep(folder, self.config.tokenize.num_crops, 0))
        self._run_wave(steps, "tokenize", "Tokenizing")

    def train_tokenizers(self, images: Sequence[ImageTokenizerConfig]) -> None:
        """Those that are missing: text-like ones, and these image-like ones.

        Raises:
            ConfigError: one is there, but with other settings.
        """
        from fourmill.pipeline.tokenizers import missing_images, missing_texts, train_texts

        config, folder = self.config.tokenize, self.config.tokenizers
        dataset = Dataset.open(self.config.root)
        if missing_texts(config, folder):
            with self.timings.stage("train vocabulary"):
                train_texts(dataset, config, folder)
        missing = [each for each in missing_images(config, folder) if each in images]
        if missing:
            self._start_ray()
            with self.timings.stage("train tokenizers") as row:
                row.items = len(missing)
                self._train(dataset, missing)

    def _train(self, dataset: Dataset, missing: Sequence[ImageTokenizerConfig]) -> None:
        from fourmill.pipeline.tokenizers import TrainingJob, token_name, train_images

        jobs = [
            TrainingJob(
                each, modality(each.modality), self.config.tokenizers, dataset.url, dataset.head.id,
                self.config.label.max_side, self._makers(dataset, each.modality),
            )
            for each in missing
        ]  # fmt: skip
        done = dict.fromkeys(map(token_name, missing), 0)
        with Steps(dict.fromkeys(done, 100), "Training tokenizers (per cent)") as bars:

            def note(name: str, step: int, steps: int) -> None:
                percent = 100 * step // steps
                bars.advance(name, percent - done[name])
                done[name] = percent

            train_images(jobs, self.config.address, note)
            for name in done:
                note(name, 1, 1)

    # -- steps -----------------------------------------------------------------------------------

    def _label_steps(self) -> list[LabelStep]:
        config = self.config.label
        return [LabelStep(each, config.max_side, config.keep) for each in config.labelers]

    def _tokenize_step(self, config: ImageTokenizerConfig) -> TokenizeStep:
        from fourmill.pipeline.tokenizers import token_name

        return TokenizeStep(
            self.config.tokenizers / token_name(config),
            self.config.tokenize.num_crops,
            self.config.label.max_side,
        )

    def _transient_images(self) -> list[ImageTokenizerConfig]:
        transient = {name for each in self._label_steps() for name in each.transient}
        return [each for each in self.config.tokenize.images if each.modality in transient]

    def _makers(self, dataset: Dataset, name: str) -> list[Step]:
        """Steps that make a modality that the dataset does not store, upstream first."""
        if name in dataset.modalities:
            return []
        steps = self._label_steps()
        chain: list[Step] = []
        wanted = [name]
        while wanted:
            each = wanted.pop()
            maker = next((step for step in steps if each in step.writes), None)
            if maker is None:
                raise ConfigError(
                    f"nothing makes {each}, which a tokenizer is to encode: add its labeler to "
                    f"`label.labelers`"
                )
            if maker not in chain:
                chain.insert(0, maker)
                wanted += [r for r in maker.reads if r not in dataset.modalities]
        return chain

    # -- waves -----------------------------------------------------------------------------------

    def _run_wave(self, steps: Sequence[Step], stage: str, title: str) -> None:
        dataset = Dataset.open(self.config.root)
        plan = plan_wave(dataset, steps)
        if plan.is_empty:
            return
        if plan.work:
            self._start_ray()
        with self.timings.stage(stage) as row:
            row.items = sum(plan.samples.values())
            run_plan(dataset, plan, stage, title, self.timings)

    def _start_ray(self) -> None:
        from fourmill.pipeline.workers import ray_session

        self._stack.enter_context(ray_session(self.config.address))


def refuse_other_definitions(dataset: Dataset, config: RunConfig) -> None:
    """Complain about modalities that are stored as something else than the configuration says.

    Raises:
        ConfigError: it says which, and what to do.
    """
    for name in (each.name for each in config.modalities):
        entry = dataset.modalities.get(name)
        if entry is not None and entry.definition != modality(name):
            theirs, ours = entry.definition.record(), modality(name).record()
            differs = [key for key in theirs | ours if theirs.get(key) != ours.get(key)]
            raise ConfigError(
                f"{dataset.url}: {name} is stored with other values of {', '.join(differs)}; "
                f"give it another name, or make the dataset again"
            )


def plan_corpus(config: CorpusConfig, root: str) -> ingesting.IngestPlan:
    """What of the corpus goes where in the dataset under `root`.

    Raises:
        SourceError: a source is not there.
        ConfigError: labels of a modality that nobody knows, or that no source reads.
    """
    labels = [modality(each) for each in config.labels]
    taken = [each.name for each in labels if each.name in ingesting.OWN or not endings(each)]
    if taken:
        raise ConfigError(
            f"corpus.labels: {', '.join(taken)} cannot lie beside pictures; what fourmill makes "
            f"itself (captions, tokens, crops) needs no naming"
        )
    archive = config.download.keep or f"{root.rstrip('/')}/.downloads"
    sources = [
        open_source(each, config.download, config.filters, archive, labels)
        for each in config.sources
    ]
    unread = {*config.labels} - {name for each in sources for name in each.label_modalities}
    if unread:
        raise ConfigError(
            f"corpus.labels: nothing reads {', '.join(sorted(unread))}: labels lie beside the "
            f"pictures of a folder or in tars, and the sources are {', '.join(config.sources)}"
        )
    downloads = any(isinstance(each, UrlListSource) for each in sources)
    return ingesting.plan_ingest(
        sources,
        samples_per_shard=config.samples_per_shard,
        held_out=config.held_out,
        seed=config.seed,
        treatment=Treatment(config.max_side, config.licence, config.filters),
        shards_at_once=config.download.shards_at_once if downloads else None,
    )


def run_plan(
    dataset: Dataset, plan: Plan, stage: str, title: str, timings: Timings, aside: str = ""
) -> None:
    """Do the work of a plan and publish what it made, in one step.

    Args:
        aside: only put it aside, under this name.
    """
    if plan.work:
        from fourmill.pipeline.engine import Engine

        totals: dict[str, int] = {}
        for index, names in plan.work.items():
            for name in names:
                totals[name] = totals.get(name, 0) + plan.samples[index]
        with Steps(totals, title) as bars:
            report = Engine(plan, bars.advance).run()
        for name in totals:
            timings.add(
                stage, name, report.samples[name], report.failed[name], report.busy_seconds[name]
            )
    entries = [writer.finish() for each in plan.steps.values() for writer in each.writers.values()]
    message = f"{stage}: {', '.join(sorted(each.modality for each in entries))}"
    if aside:
        dataset.put_aside(aside, entries, message)
    else:
        dataset.publish(entries, message)


def describe_run(config: RunConfig) -> list[str]:
    """What a run would do, in words, without doing any of it."""
    dataset = Dataset.open(config.root, create=True)
    if dataset.is_empty:
        plan = plan_corpus(config.corpus, config.root)
        return [
            f"ingest {plan.num_items} items into {len(plan.shards)} shards under {config.root}",
            f"label with {', '.join(config.label.labelers)}",
            f"train tokenizers under {config.tokenizers}, then tokenize",
        ]
    stale = [each for each in dataset.status().modalities if each.is_stale]
    wanted = [name for each in Run(config)._label_steps() for name in each.stored]
    missing = [name for name in wanted if name not in dataset.modalities]
    lines = [f"label: {name}" for name in missing]
    lines += [f"make again: {each.modality} ({each.state})" for each in stale]
    return lines or ["nothing: all labels are there and current"]
