"""What a fine-tuning will be made of, before it begins.

out/run.json                        config, snapshot, digests; written once
out/metrics.jsonl                   losses and measures by step
out/checkpoints/step-00000200/      network, moving average, optimizer, state.json
out/finetuned.safetensors           encoder and head, when the training is complete
out/result.json                     how good it is, beside chance
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Modality
from fourmill.train.class_labels import ClassLabel
from fourmill.train.records import Record, snapshot_of_run
from fourmill.train.transfer.config import FinetuneConfig

WEIGHTS, RESULT = "finetuned.safetensors", "result.json"


@dataclass(frozen=True)
class Run:
    """What a run is made of.

    Attributes:
        label: the dense modality that is the truth; `None` for classes.
        snapshot: id of the dataset's snapshot that it trains on.
        contents: digests of the versions that it reads, and of the model.
    """

    config: FinetuneConfig
    label: Modality | None
    snapshot: str
    contents: dict[str, str]

    @property
    def record(self) -> Record[FinetuneConfig]:
        """What `run.json` says of it."""
        return Record(self.config, self.snapshot, self.contents)

    @property
    def is_finished(self) -> bool:
        """Whether all was done before."""
        return (self.config.out / RESULT).is_file()


def plan_run(config: FinetuneConfig) -> Run:
    """What a run would be made of: the head of the dataset, or the snapshot that it began with.

    Raises:
        DatasetError: there is no dataset.
        ConfigError: the dataset lacks a modality, there is no such model, or `out` holds another
            run.
        MissingPackageError: a model that is not on this machine and cannot be fetched.
    """
    head = Dataset.open(config.root).head
    modality = ClassLabel.parse(config.label).modality
    wanted = ["rgb", modality, *([config.mask] if config.mask else []), *config.others]
    if config.others:
        wanted.append("crop_settings")
    for name in wanted:
        if name not in head.modalities:
            raise UnknownNameError(f"modality in {config.root}", name, head.modalities)
    contents = {name: head.modalities[name].content_sha256 for name in sorted(set(wanted))}
    contents["the model"] = _digest(_file_of(config))
    if config.start is not None:
        contents["the start"] = _digest(_start_of(config.start))
    definition = head.modalities[modality].definition
    label = None if config.task == "classification" else definition
    run = Run(config, label, head.id, contents)
    snapshot = snapshot_of_run(run.record, "a fine-tuning")
    return replace(run, snapshot=snapshot)


def _file_of(config: FinetuneConfig) -> Path:
    from fourmill.train.published import weights_file

    return weights_file(config.model, config.weights)


def _start_of(folder: Path) -> Path:
    file = folder / WEIGHTS
    if not file.is_file():
        raise ConfigError(f"{folder}: no finished fine-tuning: it has no {WEIGHTS}")
    return file


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
