"""An evaluation from beginning to end: a model, a dataset, a folder of figures."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.train.evaluation.evaluator import Evaluator
from fourmill.train.evaluation.folder import ReportFolder
from fourmill.train.evaluation.frozen_losses import frozen_losses, lacking_tokens
from fourmill.train.evaluation.panel import draw_panel
from fourmill.train.evaluation.settings import Settings
from fourmill.train.evaluation.tasks import Task, plan_tasks
from fourmill.train.progress import counting, say
from fourmill.train.published import Which, run_of, weights_file
from fourmill.train.sampler import Sampler, run_folder

_LOSSES = "cross-entropy"


@dataclass(frozen=True)
class Wanted:
    """What is to be evaluated.

    Attributes:
        model: as `Sampler.load` takes it; `tokenizers`, `weights`, `device` and `dtype` too.
        tasks, inputs, truths: see `plan_tasks`.
        losses: whether cross-entropy on frozen masks is told, where the dataset has the tokens.
    """

    model: str
    root: str
    tasks: Sequence[str] = ()
    inputs: Sequence[str] = ()
    truths: Mapping[str, str] | None = None
    tokenizers: Path | None = None
    weights: Which = "model"
    device: str = "auto"
    dtype: str = "auto"
    losses: bool = True


class Evaluation:
    """A model and a dataset, and what of them is compared.

    Raises:
        ConfigError: no such model or modality, or nothing to evaluate; see `plan_tasks`.
        DatasetError: there is no dataset.
        MissingPackageError: a model that is not on this machine and cannot be fetched.
    """

    def __init__(self, wanted: Wanted, settings: Settings) -> None:
        self._wanted, self._settings = wanted, settings
        self._dataset = Dataset.open(wanted.root)
        have = self._dataset.modalities
        place = settings.class_label
        if place is not None and place.modality not in have:
            raise UnknownNameError(f"modality in {self._dataset.url}", place.modality, have)
        if settings.classes is not None and "train" not in self._dataset.head.splits:
            raise ConfigError(
                f"--classes {settings.classes}: {self._dataset.url} has no split train, whose "
                f"samples would be the neighbours"
            )
        self._sampler = Sampler.load(
            wanted.model, wanted.tokenizers, wanted.device, wanted.dtype, wanted.weights
        )
        self._file = weights_file(run_folder(wanted.model), wanted.weights)
        self.tasks = plan_tasks(
            self._sampler, self._dataset, wanted.tasks, wanted.inputs, wanted.truths,
            settings.ignored,
        )  # fmt: skip
        self._evaluator = Evaluator(self._sampler, self._dataset, settings)
        self._lacking = lacking_tokens(self._sampler, self._dataset)
        self._has_losses = wanted.losses and not self._lacking

    def plan(self) -> dict[str, Any]:
        """What would be done; JSON."""
        tasks = {
            each.name: f"{each.target} from {', '.join(each.inputs)}, beside {each.truth.name}, "
            f"{len(self._evaluator.split(each))} samples"
            for each in self.tasks
        }
        losses = "yes" if self._has_losses else self._why_no_losses() or "not asked for"
        return {
            "model": str(self._file), "root": self._dataset.url,
            "snapshot": self._dataset.head.id, **tasks, _LOSSES: losses,
        }  # fmt: skip

    def folder(self, out: Path) -> ReportFolder:
        """Where it is to be written.

        Raises:
            ConfigError: the folder holds something else.
        """
        return ReportFolder(out, self._identity())

    def run(self, folder: ReportFolder) -> dict[str, Any]:
        """Do what is not done yet, write it, and give the report.

        Raises:
            ConfigError: another process writes the folder.
        """
        with folder.begun():
            records = [folder.done(each.name) or self._run(each, folder) for each in self.tasks]
            report = self._identity() | {
                "model": self._wanted.model,
                "root": self._dataset.url,
                "tasks": records,
                "cross_entropy": self._losses(),
                "notes": [note for note in (self._why_no_losses(), self._why_no_mean()) if note],
            }
            folder.commit(report)
        return report

    def _run(self, task: Task, folder: ReportFolder) -> dict[str, Any]:
        with counting(task.name, self._evaluator.work(task)) as count:
            result = self._evaluator.run(task, count)
        return folder.keep(result, draw_panel(self._evaluator, result))

    def _losses(self) -> dict[str, float]:
        if not self._has_losses:
            return {}
        settings = self._settings
        total = len(self._evaluator.split(self.tasks[0]))
        with counting(_LOSSES, total) as count:
            return frozen_losses(
                self._sampler, self._dataset, run_of(self._file), settings.split, settings.limit,
                settings.batch_size, count,
            )  # fmt: skip

    def _why_no_losses(self) -> str:
        if not self._wanted.losses or not self._lacking:
            return ""
        return (
            f"no cross-entropy on frozen masks: the dataset has no {', '.join(self._lacking)}"
        )  # fmt: skip

    def _why_no_mean(self) -> str:
        if not self._settings.training or "train" in self._dataset.head.splits:
            return ""
        return "no mean of train: the dataset has no split of this name"

    def _identity(self) -> dict[str, Any]:
        """All that decides the figures."""
        with self._file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        settings = asdict(self._settings)
        settings.pop("batch_size")
        tokenizers = self._sampler.tokenizers
        used = {name for each in self.tasks for name in (each.target, *each.inputs)}
        return {
            "weights_sha256": digest,
            "snapshot": self._dataset.head.id,
            "settings": settings,
            "tasks": [
                [each.target, each.truth.name, dict(each.inputs)] for each in self.tasks
            ],
            "tokenizers": {
                name: tokenizers.decoding_sha256(name) for name in sorted(used)
                if name in tokenizers
            },
            "losses": self._has_losses,
        }  # fmt: skip


def tell(report: Mapping[str, Any], folder: Path) -> None:
    """The main figures, for people."""
    for record in report["tasks"]:
        for name, scores in record["scores"].items():
            metric, value = next(iter(scores.items()))
            shown = "–" if value is None else f"{value:.3g}"
            say(f"{record['task']:>16}  {name:<16} {metric} {shown}")
    say(f"wrote {folder / 'report.md'}, {folder / 'report.json'}")
