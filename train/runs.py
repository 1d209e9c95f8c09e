"""The folder of a run: what it was made of, how far it is. Nothing here needs torch.

out/run.json                        config, snapshot, modalities; written once
out/metrics.jsonl                   losses by step
out/checkpoints/step-000200/        weights, optimizer, state.json
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.hashing import canonical_json
from fourmill.manifests.modalities import Modality
from fourmill.manifests.snapshots import Snapshot
from fourmill.train.config import TrainConfig
from fourmill.train.domains import Domains
from fourmill.train.started import process_count

_MODALITIES = TypeAdapter(tuple[Modality, ...])
_STATE = "state.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """What a run is made of.

    Attributes:
        snapshot: id of the snapshot of `root` that it reads.
        contents: modality -> digest of the version that it reads.
        snapshots: ids of those of `datasets`, if there are any.
    """

    config: TrainConfig
    snapshot: str
    contents: dict[str, str]
    domains: Domains
    snapshots: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on."""
        return {"config": self.config.identity, "contents": self.contents}


def contents_of(snapshot: Snapshot, domains: Domains, where: str | None = None) -> dict[str, str]:
    """Digests of the versions that a training of these domains reads.

    Args:
        where: marks that choose its samples.

    Raises:
        UnknownNameError: the snapshot has no such marks.
    """
    if where is not None and where not in snapshot.modalities:
        raise UnknownNameError("modality of marks", where, snapshot.modalities)
    names = {each.name for each in domains.modalities} & snapshot.modalities.keys()
    if any(each.folder == "rgb" for each in domains.modalities):
        names |= {"rgb", "crop_settings"}
    if where is not None:
        names.add(where)
    return {name: snapshot.modalities[name].content_sha256 for name in sorted(names)}


def write_run(run: Run) -> None:
    """Write down what the run is made of, before it begins."""
    value = {
        "config": run.config.model_dump(mode="json"),
        "snapshot": run.snapshot,
        "snapshots": list(run.snapshots),
        "contents": run.contents,
        "modalities": [each.record() for each in run.domains.modalities],
        "inputs": list(run.domains.inputs),
        "targets": list(run.domains.targets),
    }
    run.config.out.mkdir(parents=True, exist_ok=True)
    replace_file(run.config.out / "run.json", canonical_json(value))


def read_run(out: Path) -> Run | None:
    """What the run in a folder is made of; `None` where there is none.

    Raises:
        ConfigError: not readable.
    """
    path = out / "run.json"
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        domains = Domains(
            _MODALITIES.validate_python(value["modalities"]),
            tuple(value["inputs"]),
            tuple(value["targets"]),
        )
        config = TrainConfig.model_validate(value["config"])
        others = tuple(value.get("snapshots", ()))  # runs of before there were any lack them
        return Run(config, value["snapshot"], dict(value["contents"]), domains, others)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{path}: not readable ({error}); remove the folder {out}") from error


def checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints, the last one first."""
    return sorted((out / "checkpoints").glob("step-*"), reverse=True)


def finished_steps(out: Path) -> int:
    """Steps of the last checkpoint, 0 where there is none."""
    found = checkpoints(out)
    if not found:
        return 0
    state = json.loads((found[0] / _STATE).read_text(encoding="utf-8"))
    return int(state["step"])


def refuse_other_run(found: Run, wanted: Run) -> None:
    """Refuse to go on with a run of another configuration, or on other data.

    Raises:
        ConfigError: what differs, and what to do.
    """
    if found.identity == wanted.identity:
        return
    refuse_differences(
        wanted.config.out,
        (found.config.model_dump(mode="json"), found.contents),
        (wanted.config.model_dump(mode="json"), wanted.contents),
        {"root", "tokenizers", "out"},
    )


def refuse_differences(
    out: Path,
    old: tuple[Mapping[str, Any], Mapping[str, str]],
    new: tuple[Mapping[str, Any], Mapping[str, str]],
    incidental: Collection[str],
) -> NoReturn:
    """Refuse to go on with a run, for all that differs.

    Args:
        old: configuration, and digests of versions by modality, of the run that is there.
        incidental: options that do not matter.

    Raises:
        ConfigError: always; what differs, and what to do.
    """
    (old_config, old_contents), (new_config, new_contents) = old, new
    differing = [
        f"{key} was {old_config.get(key)!r}, now {new_config[key]!r}"
        for key in new_config
        if old_config.get(key) != new_config[key] and key not in incidental
    ]
    changed = sorted(
        name
        for name in old_contents.keys() | new_contents.keys()
        if old_contents.get(name) != new_contents.get(name)
    )
    if changed:
        differing.append(f"the dataset has other versions of {', '.join(changed)}")
    raise ConfigError(
        f"{out} holds a run that was made otherwise: {'; '.join(differing)}. Give "
        f"another `out`, or begin anew with --fresh, which sets the old run aside"
    )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep all others out of a run's folder for a while.

    Raises:
        ConfigError: another process trains there.
    """
    with held(out, f"{out}: another process trains there; wait for it, or give another `out`"):
        yield


@contextmanager
def held(folder: Path, refusal: str) -> Iterator[None]:
    """Keep all others out of a folder for a while; a process that dies lets go of it.

    Args:
        refusal: what those are told who come meanwhile.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(refusal) from error
        yield


def set_aside(out: Path) -> Path | None:
    """Rename a run's folder to a free name beside it, and say which.

    Raises:
        ConfigError: several processes were started, which may have looked at it already.
    """
    if not out.exists():
        return None
    if process_count() > 1:
        raise ConfigError(
            f"{out}: --fresh is for one process, for others may see the old run still: rename the "
            f"folder, or give another `out`"
        )
    number = 1
    while (target := out.with_name(f"{out.name}.old-{number}")).exists():
        number += 1
    out.rename(target)
    return target


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f".{path.name}.new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
