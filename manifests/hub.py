"""Weights of a model hub: where they lie on this machine, fetched if need be, and their digest.

They come from `$FOURMILL_WEIGHTS/<org>/<name>` (machines without a network), from Hugging Face's
cache, or from the hub, in this order: what is there is used as it is, and never looked up again.
Only configurations and weights are fetched, and no program: nothing of a repository is executed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.hashing import sha256_of
from fourmill.manifests.packages import cache_folder

log = logging.getLogger(__name__)

_SETTINGS = (".json", ".txt", ".model", ".jinja")
_WEIGHTS = (".safetensors", ".bin")  # the first of which a folder has any
_PIPELINE = "model_index.json"  # of diffusers: what lies in the folders beside it
# the same weights once more, in another precision or under another name
_AGAIN = (".fp16.", ".bf16.", ".non_ema.", "consolidated.")


@dataclass(frozen=True)
class HubWeights:
    """A repository of a model hub, as far as an expert or tokenizer reads it.

    Attributes:
        id: `<org>/<name>`.
        revision: the commit that is meant; `None` takes what is current when it is fetched first.
        folders: those inside the repository that belong to the model (of diffusers: `unet`, `vae`,
            …); files beside them are always read, but for weights beside a pipeline's parts.
    """

    id: str
    revision: str | None = None
    folders: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"hub {self.id}" + (f" at {self.revision}" if self.revision else "")

    def folder(self) -> Path:
        """Where the files lie, fetched if need be.

        Raises:
            MissingPackageError: they are not here and cannot be fetched; says what to run.
        """
        found = self.local_folder() or self._fetched()
        log.info("weights id=%s folder=%s sha256=%s", self.id, found, self._digest_of(found))
        return found

    def local_folder(self) -> Path | None:
        """Where the files lie, if they are all on this machine.

        In Hugging Face's cache the folder's name is the commit.

        Raises:
            MissingPackageError: the folder in `$FOURMILL_WEIGHTS` lacks files.
        """
        given = os.environ.get("FOURMILL_WEIGHTS")
        if given and (Path(given) / self.id).is_dir():
            folder = Path(given) / self.id
            missing = self._missing(folder)
            if missing:
                raise MissingPackageError(f"{folder} lacks {missing}: copy all of {self.id} there")
            return folder
        cached = self._cached()
        return cached if cached and not self._missing(cached) else None

    def size_bytes(self) -> int | None:
        """Bytes of the files, if they are all on this machine."""
        folder = self.local_folder()
        return sum(file.stat().st_size for file in self._files(folder)) if folder else None

    def sha256(self) -> str:
        """Digest of all files that decide the labels, weights and settings alike.

        If they are not on this machine, the hub is asked for it, and no weights are fetched.

        Raises:
            MissingPackageError: they are not here, and the hub cannot be asked.
        """
        folder = self.local_folder()
        return self._digest_of(folder) if folder else sha256_of(self._remote_digests())

    def build(self, model_class: Any, **options: Any) -> Any:
        """`model_class.from_pretrained` on these files alone: no network, no remote code.

        Raises:
            MissingPackageError: the files are not here, or are not those of such a model.
        """
        folder = self.folder()
        try:
            return model_class.from_pretrained(str(folder), local_files_only=True, **options)
        except (OSError, ValueError) as error:
            raise MissingPackageError(
                f"{folder} does not hold what {model_class.__name__} reads ({error}): remove it, "
                f"and run `hf download {self.id}`"
            ) from error

    def _cached(self) -> Path | None:
        from huggingface_hub.constants import HF_HUB_CACHE

        home = Path(HF_HUB_CACHE) / f"models--{self.id.replace('/', '--')}"
        name = self.revision or "main"
        reference = home / "refs" / name
        commit = reference.read_text().strip() if reference.is_file() else name
        folder = home / "snapshots" / commit
        return folder if folder.is_dir() else None

    def _fetched(self) -> Path:
        import huggingface_hub

        names = self._wanted(each.rfilename for each in self._info().siblings)
        try:
            folder = huggingface_hub.snapshot_download(
                self.id, revision=self.revision, allow_patterns=names
            )
        except Exception as error:  # of a network: any of a dozen classes of three packages
            raise self._unreachable(error) from error
        return Path(folder)

    def _remote_digests(self) -> dict[str, str]:
        import huggingface_hub

        info = self._info()
        digests = {each.rfilename: each.lfs.sha256 for each in info.siblings if each.lfs}
        for name in self._wanted(each.rfilename for each in info.siblings):
            if name not in digests:  # small, and kept in the cache
                file = huggingface_hub.hf_hub_download(self.id, name, revision=info.sha)
                digests[name] = file_sha256(Path(file))
        wanted = self._wanted(digests)
        return {name: digests[name] for name in wanted}

    def _info(self) -> Any:
        """What the hub says of the repository: commit and files with their digests."""
        import huggingface_hub

        if os.environ.get("FOURMILL_OFFLINE") == "1":
            raise self._unreachable("FOURMILL_OFFLINE=1 forbids to fetch them")
        try:
            api = huggingface_hub.HfApi()
            return api.model_info(self.id, revision=self.revision, files_metadata=True)
        except Exception as error:  # of a network: any of a dozen classes of three packages
            raise self._unreachable(error) from error

    def _unreachable(self, why: object) -> MissingPackageError:
        at = f" --revision {self.revision}" if self.revision else ""
        reason = str(why).strip().partition("\n")[0]
        return MissingPackageError(
            f"the weights {self.id} are not on this machine ({reason}): run `hf download "
            f"{self.id}{at}` where there is a network, or put them into "
            f"$FOURMILL_WEIGHTS/{self.id}"
        )

    def _files(self, folder: Path) -> list[Path]:
        names = (str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
        return [folder / name for name in self._wanted(names)]

    def _digest_of(self, folder: Path) -> str:
        files = self._files(folder)
        return sha256_of({str(file.relative_to(folder)): file_sha256(file) for file in files})

    def _wanted(self, names: Iterable[str]) -> list[str]:
        """The files that belong to the model, sorted: settings, and one form of the weights."""
        groups: dict[str, list[str]] = {}
        for name in sorted(names):
            groups.setdefault(name.rpartition("/")[0], []).append(name)
        wanted: list[str] = []
        for group in ("", *self.folders):
            ours = [n for n in groups.get(group, []) if not any(each in n for each in _AGAIN)]
            wanted += [name for name in ours if name.endswith(_SETTINGS)]
            if not group and _PIPELINE in ours:
                continue  # its parts once more, in one file of another form
            wanted += next(filter(None, ([n for n in ours if n.endswith(w)] for w in _WEIGHTS)), [])
        return sorted(wanted)

    def _missing(self, folder: Path) -> str | None:
        """What is not there of an interrupted download; `None` if all is."""
        files = {str(each.relative_to(folder)) for each in self._files(folder)}
        for group in ("", *(f"{each}/" for each in self.folders)):
            ours = {n.removeprefix(group) for n in files if n.rpartition("/")[0] == group[:-1]}
            if not ours:
                return group or "everything"
            weights = {name for name in ours if name.endswith(_WEIGHTS)}
            if "config.json" in ours and not weights:
                return f"{group}*.safetensors"
            parts = _parts(folder / group, ours) - weights
            if parts and weights:
                return f"{group}{min(parts)}"
        return None


def _parts(folder: Path, names: Iterable[str]) -> set[str]:
    """Files that the index of a large model names, in the form that is used."""
    names = set(names)
    form = next((each for each in _WEIGHTS if any(n.endswith(each) for n in names)), "")
    parts: set[str] = set()
    for name in names:
        if name.endswith(f"{form}.index.json"):
            parts |= set(json.loads((folder / name).read_text())["weight_map"].values())
    return parts


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, computed once for each state of it (size and time of change).

    In Hugging Face's cache large files are named by their SHA-256, which is then taken.
    """
    blob = file.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == 64:
        return blob.name
    state = blob.stat()
    key = sha256_of([str(blob), state.st_size, state.st_mtime_ns])
    note = cache_folder() / "digests" / key
    if note.is_file() and len(known := note.read_text()) == 64:
        return known
    with blob.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    note.parent.mkdir(parents=True, exist_ok=True)
    aside = note.with_name(f"{key}.{os.getpid()}")
    aside.write_text(digest)
    aside.replace(note)
    return digest
