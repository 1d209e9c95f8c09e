"""The file `run.json` of a training of a network: what it is made of. Nothing here needs torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

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
