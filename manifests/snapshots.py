"""Manifests: which version of which modality makes up a dataset, and where each came from."""

import json
import re
from functools import cached_property
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
)

from fourmill.manifests.errors import SnapshotError
from fourmill.manifests.hashing import canonical_json, sha256_bytes, sha256_of
from fourmill.manifests.labels import Encoding
from fourmill.manifests.modalities import Modality

SCHEMA_VERSION = 1

_FOLDER = re.compile(r"[0-9A-Za-z_@-][0-9A-Za-z_@.-]*")
_RESERVED = ("HEAD", "snapshots", "names")


class Record(BaseModel):
    """Base of what is written down: immutable, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Producer(Record):
    """What made a version: everything that decides the bytes besides the sources.

    Attributes:
        version: of the labeler, tokenizer or job; raised whenever its results change.
        code_version: of fourmill, for information; results change with `version` alone.
    """

    name: str
    version: str
    params: dict[str, Any] = Field(default_factory=dict)
    weights_sha256: str = ""
    licence: str = ""
    code_version: str = ""
    seed: int = 0

    @field_validator("params")
    @classmethod
    def _as_json(cls, params: dict[str, Any]) -> dict[str, Any]:
        """As they come back from a manifest (no tuples), so that equal producers compare equal."""
        value: dict[str, Any] = json.loads(canonical_json(params))
        return value

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it but licence and code version."""
        return sha256_of(self.model_dump(mode="json", exclude={"licence", "code_version"}))


class Lineage(Record):
    """What a version is to be: the same lineage gives the same version.

    Attributes:
        definition: of the modality, so that readers need not know it beforehand.
        sources: modality -> content digest of the version that was read.
        snapshot_of_sources: the snapshot that was current then, `""` for none.
        encoding: how depth is stored.
        shards: number of shards.
    """

    modality: str
    definition: Modality
    producer: Producer
    sources: dict[str, str]
    snapshot_of_sources: str = ""
    encoding: Encoding = Encoding()
    shards: int

    @field_validator("definition")
    @classmethod
    def _stays_inside(cls, definition: Modality) -> Modality:
        _check_folder(definition.folder)
        return definition

    @field_serializer("definition")
    def _as_written(self, definition: Modality) -> dict[str, Any]:
        return definition.record()

    @cached_property
    def identity(self) -> str:
        """SHA-256 of what decides the bytes."""
        decides = self.model_dump(
            mode="json",
            include={"modality", "definition", "sources", "encoding", "shards"},
        )
        return sha256_of(decides | {"producer": self.producer.digest})


class VersionEntry(Lineage):
    """A complete version as a manifest names it.

    Attributes:
        samples: records, those without a valid label included.
        failed: samples and source files that failed, listed in `_failed.parquet`.
        bytes: of all shards.
        content_sha256: digest over the shards' bytes and valid masks, in order.
    """

    folder: str
    samples: int
    failed: int
    bytes: int
    content_sha256: str

    @field_validator("folder")
    @classmethod
    def _is_inside(cls, folder: str) -> str:
        return _check_folder(folder)


def _check_folder(folder: str) -> str:
    """A manifest may come from anywhere: nothing is read or written but folders of the root."""
    if not _FOLDER.fullmatch(folder) or folder in _RESERVED:
        raise ValueError(f"{folder!r} cannot be the folder of a version")
    return folder


class Snapshot(Record):
    """An immutable manifest, named by the hash of its bytes.

    Attributes:
        parent: id of the snapshot before it.
        splits: name -> ranges of shards `[start, stop)`.
        modalities: name -> version.
    """

    schema_version: int = SCHEMA_VERSION
    parent: str | None = None
    message: str = ""
    splits: dict[str, list[tuple[int, int]]] = Field(default_factory=dict)
    modalities: dict[str, VersionEntry] = Field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the bytes."""
        return sha256_bytes(self.to_bytes())

    @property
    def num_shards(self) -> int:
        """Shards of every version."""
        return next((each.shards for each in self.modalities.values()), 0)

    def to_bytes(self) -> bytes:
        """The manifest's file."""
        return canonical_json(self.model_dump(mode="json"))

    @staticmethod
    def from_bytes(data: bytes, where: str) -> "Snapshot":
        """The manifest of a file.

        Args:
            where: the file's place, for messages.

        Raises:
            SnapshotError: not a manifest, or of a schema that this version does not know.
        """
        try:
            raw = _peek(data)
            if raw != SCHEMA_VERSION:
                raise SnapshotError(
                    f"{where}: schema {raw!r}, this fourmill knows schema {SCHEMA_VERSION}: use "
                    f"a newer fourmill"
                )
            return Snapshot.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise SnapshotError(f"{where}: not a manifest: {place}: {first['msg']}") from error


class _Peek(BaseModel):
    schema_version: int


def _peek(data: bytes) -> int:
    return _Peek.model_validate_json(data).schema_version
