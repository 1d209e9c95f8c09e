"""What the training of a tokenizer will be made of, before it begins. Nothing here needs torch.

out/run.json                        config, snapshot, digests; written once
out/metrics.jsonl                   losses, use of the code book, reconstruction, by step
out/checkpoints/step-00000500/      network, moving average, optimizer, state.json
out/tok_<name>@<size>/              the tokenizer, when the training is complete
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.hashing import canonical_json
from fourmill.manifests.modalities import Kind, Modality, modality
from fourmill.manifests.snapshots import Snapshot
from fourmill.train import runs
from fourmill.train.tokenizers.config import INCIDENTAL, TokenizerTrainConfig


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
    def tokenizer(self) -> Path:
        """The folder of the tokenizer, which is there when the training is complete."""
        config = self.config
        name = config.name or config.modality
        is_vector = self.definition.kind is Kind.VECTOR
        return config.out / (f"tok_{name}" if is_vector else f"tok_{name}@{config.size}")


def plan_run(config: TokenizerTrainConfig) -> Run:
    """What a run would be made of: the head of the dataset, or the snapshot that it began with.

    Raises:
        DatasetError: there is no dataset.
        ConfigError: the dataset lacks a modality, or `out` holds another run.
    """
    head = Dataset.open(config.root).head
    wanted = Run(config, modality(config.modality), head.id, _contents(config, head))
    found = _read(config.out)
    if found is None:
        return wanted
    old, snapshot, contents = found
    if (old.identity, contents) != (config.identity, wanted.contents):
        _refuse(old, contents, wanted)
    return Run(config, wanted.definition, snapshot, contents)


def write_run(run: Run) -> None:
    """Write down what the run is made of, before it begins."""
    value = {
        "config": run.config.model_dump(mode="json"),
        "snapshot": run.snapshot,
        "contents": run.contents,
    }
    run.config.out.mkdir(parents=True, exist_ok=True)
    runs.replace_file(run.config.out / "run.json", canonical_json(value))


def _contents(config: TokenizerTrainConfig, snapshot: Snapshot) -> dict[str, str]:
    wanted = [config.modality, *([config.mask] if config.mask else [])]
    for name in wanted:
        if name not in snapshot.modalities:
            raise UnknownNameError("modality of the dataset", name, snapshot.modalities)
    return {name: snapshot.modalities[name].content_sha256 for name in sorted({"rgb", *wanted})}


def _read(out: Path) -> tuple[TokenizerTrainConfig, str, dict[str, str]] | None:
    path = out / "run.json"
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        config = TokenizerTrainConfig.model_validate(value["config"])
        return config, str(value["snapshot"]), dict(value["contents"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: not the training of a tokenizer ({error}); give another `out`"
        ) from error


def _refuse(old: TokenizerTrainConfig, contents: dict[str, str], wanted: Run) -> NoReturn:
    runs.refuse_differences(
        wanted.config.out,
        (old.model_dump(mode="json"), contents),
        (wanted.config.model_dump(mode="json"), wanted.contents),
        INCIDENTAL,
    )
