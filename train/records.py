"""The file `run.json` of a training of a network: what it is made of. Nothing here needs torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.hashing import canonical_json, sha256_of
from fourmill.train import runs


class Settings(BaseModel):
    """The configuration of the training of a network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    incidental: ClassVar[tuple[str, ...]] = ()
    """Options that do not change the result."""

    out: Path = Field(description="folder of the run: checkpoints, metrics and what it makes")
    lr: float = Field(default=1e-3, gt=0, description="highest learning rate")
    min_lr: float = Field(default=0.0, ge=0, description="learning rate at the end")
    schedule: Literal["cosine", "wsd", "inverse_sqrt"] = Field(
        default="cosine", description="of the learning rate after the warm-up"
    )
    cooldown: int = Field(
        default=0, ge=0, description="last steps, in which wsd and inverse_sqrt fall to min_lr"
    )
    weight_decay: float = Field(
        default=0.05, ge=0, description="of all parameters with two dimensions"
    )
    clip: float | None = Field(default=1.0, gt=0, description="highest norm of the gradient")
    keep_checkpoints: int = Field(default=2, ge=1, description="how many of the last ones are kept")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of activations; auto: bfloat16 on GPUs and on CPUs with matrix units for it",
    )
    device: str = Field(
        default="auto", description="cpu, cuda, cuda:1; auto: a GPU if there is one"
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: all")

    @property
    def identity(self) -> str:
        """SHA-256 of what decides the result: a run can be resumed with the same one only."""
        return sha256_of(self.model_dump(mode="json", exclude=set(self.incidental)))


_Settings = TypeVar("_Settings", bound=Settings)


@dataclass(frozen=True)
class Record(Generic[_Settings]):
    """What a run is made of.

    Attributes:
        snapshot: id of the dataset's snapshot that it trains on.
        contents: digests of all that it reads, by name.
    """

    config: _Settings
    snapshot: str
    contents: Mapping[str, str]

    def write(self) -> None:
        """Write it down, before the run begins."""
        value = {
            "config": self.config.model_dump(mode="json"),
            "snapshot": self.snapshot,
            "contents": dict(self.contents),
        }
        self.config.out.mkdir(parents=True, exist_ok=True)
        runs.replace_file(self.config.out / "run.json", canonical_json(value))


def snapshot_of_run(wanted: Record[_Settings], what: str) -> str:
    """The snapshot that a run began with, or that it would begin with.

    Args:
        what: kind of the training, for messages: `the training of a tokenizer`.

    Raises:
        ConfigError: the folder holds another run.
    """
    found = _read(wanted.config.out, type(wanted.config), what)
    if found is None:
        return wanted.snapshot
    if (found.config.identity, found.contents) != (wanted.config.identity, wanted.contents):
        runs.refuse_differences(
            wanted.config.out,
            (found.config.model_dump(mode="json"), found.contents),
            (wanted.config.model_dump(mode="json"), wanted.contents),
            wanted.config.incidental,
        )
    return found.snapshot


def _read(out: Path, model: type[_Settings], what: str) -> Record[_Settings] | None:
    path = out / "run.json"
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        config = model.model_validate(value["config"])
        return Record(config, str(value["snapshot"]), dict(value["contents"]))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{path}: not {what} ({error}); give another `out`") from error
