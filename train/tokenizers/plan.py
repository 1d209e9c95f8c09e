"""What the training of a tokenizer will be made of, before it begins. Nothing here needs torch.

out/run.json                        config, snapshot, digests; written once
out/metrics.jsonl                   losses, use of the code book, reconstruction, by step
out/checkpoints/step-00000500/      network, moving average, optimizer, state.json
out/tok_<name>@<size>/              the tokenizer, when the training is complete
"""

from dataclasses import dataclass, replace
from pathlib import Path

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import PARTS, Kind, Modality, modality
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.records import Record, snapshot_of_run
from fourmill.train.tokenizers.config import TokenizerTrainConfig


@dataclass(frozen=True)
class Run:
    """What a run is made of.

    Attributes:
        definition: of the modality that is tokenized.
        snapshot: id of the dataset's snapshot that it trains on.
        contents: modality -> digest of the version that it reads.
    """

    config: TokenizerTrainConfig
    definition: Modality
    snapshot: str
    contents: dict[str, str]

    @property
    def record(self) -> Record[TokenizerTrainConfig]:
        """What `run.json` says of it."""
        return Record(self.config, self.snapshot, self.contents)

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer, which is there when the training is complete."""
        config = self.config
        name = config.name or config.modality
        has_size = self.definition.kind is not Kind.VECTOR and config.modality not in PARTS
        return config.out / (f"tok_{name}@{config.size}" if has_size else f"tok_{name}")


def plan_run(config: TokenizerTrainConfig) -> Run:
    """What a run would be made of: the head of the dataset, or the snapshot that it began with.

    Raises:
        DatasetError: there is no dataset.
        ConfigError: the dataset lacks a modality, `out` holds another run, or what is a part of
            labels is to be masked or named.
    """
    if config.modality in PARTS and (config.mask or config.name):
        raise ConfigError(
            f"{config.modality}: parts of {PARTS[config.modality]} have neither mask nor name"
        )
    head = Dataset.open(config.root).head
    wanted = Run(config, modality(config.modality), head.id, _contents(config, head))
    snapshot = snapshot_of_run(wanted.record, "the training of a tokenizer")
    return replace(wanted, snapshot=snapshot)


def _contents(config: TokenizerTrainConfig, snapshot: Snapshot) -> dict[str, str]:
    stored = PARTS.get(config.modality, config.modality)
    wanted = [stored, *([config.mask] if config.mask else [])]
    for name in wanted:
        if name not in snapshot.modalities:
            raise UnknownNameError("modality of the dataset", name, snapshot.modalities)
    return {name: snapshot.modalities[name].content_sha256 for name in sorted({"rgb", *wanted})}
