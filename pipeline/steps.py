"""What the engine runs: labelers, tokenizers and crop settings behind one small interface.

A step maps decoded samples to labels of the modalities that it writes. It is picklable before
`load`, knows its own lineage, and is pure, so that any worker may run it on any block of samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fourmill.labelers import registry as labelers
from fourmill.labelers.base import Labeler, Resources, Sample
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind, Modality, modality
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.base import TokenizerSpec

Outcome = Mapping[str, Label] | SampleError

ERROR = "reconstruction_error"
"""Beside the tokens of an outcome, for a few samples: see `tokenize/verify.py`."""


_GPU_SHARE = 0.25  # of a tokenizer: several run side by side, and crops are cut on CPUs


class Step(ABC):
    """One producer of modalities in a run.

    Attributes:
        reads: modalities that every sample needs; a sample without one fails at this step.
        optional: modalities that are given where the dataset has them, else `None`.
        writes: what it makes; `transient` ones are handed on and not stored.
        gpu_if_any: share of a GPU that it takes where there is one; elsewhere it runs with the
            others on CPUs.
        runtime_env: what its workers need beside this program's packages, as Ray writes it.
    """

    name: str
    reads: tuple[str, ...]
    optional: tuple[str, ...] = ()
    writes: tuple[str, ...]
    transient: tuple[str, ...] = ()
    resources: Resources = Resources()
    gpu_if_any: float = 0.0
    runtime_env: Mapping[str, Any] = MappingProxyType({})

    @property
    def stored(self) -> tuple[str, ...]:
        """What it writes to the dataset."""
        return tuple(each for each in self.writes if each not in self.transient)

    @abstractmethod
    def producer(self) -> Producer:
        """Lineage of what it makes, without loading anything heavy."""

    def definition(self, name: str) -> Modality:
        """The modality of that name that it writes."""
        return modality(name)

    def record(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and type of one fixed-size record, or `None` where members vary in size."""
        return None

    @abstractmethod
    def load(self, device: str) -> None:
        """Get ready; once per worker."""

    @abstractmethod
    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        """One outcome a sample, in order."""


class LabelStep(Step):
    """A labeler of the catalogue."""

    def __init__(self, name: str, max_side: int, keep: Sequence[str] = ()) -> None:
        spec = labelers.spec(name)
        self.name = name
        self.max_side = max_side
        self.optional = spec.optional
        self.reads = tuple(each for each in spec.reads if each not in spec.optional)
        self.writes = spec.writes
        self.transient = tuple(each for each in spec.transient if each not in keep)
        self.resources = spec.resources
        self.runtime_env = dict(spec.runtime_env)
        # workers need not know what this process was told of modalities
        self._definitions = {each: modality(each) for each in spec.writes}
        self._labeler: Labeler | None = None

    def producer(self) -> Producer:
        spec = labelers.spec(self.name)
        params: dict[str, Any] = {"max_side": self.max_side} if "rgb" in self.reads else {}
        return Producer(
            name=self.name,
            version=str(spec.version),
            params=params,
            weights_sha256=labelers.get(self.name).weights_sha256(),
            licence=spec.licence,
            code_version=code_version(),
        )

    def definition(self, name: str) -> Modality:
        return self._definitions[name]

    def load(self, device: str) -> None:
        self._labeler = labelers.get(self.name)
        self._labeler.load(device)

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        assert self._labeler is not None
        return list(self._labeler.label(batch))


class CropStep(Step):
    """Crop settings of every sample, made once and shared by all modalities."""

    name = "crops"
    reads = ("image_size",)
    writes = ("crop_settings",)
    resources = Resources(memory_gib=0.5, batch_size=4096)

    def __init__(self, num_crops: int, seed: int, min_scale: float) -> None:
        self.num_crops, self.seed, self.min_scale = num_crops, seed, min_scale

    def producer(self) -> Producer:
        params = {"num_crops": self.num_crops, "min_scale": self.min_scale}
        return Producer(
            name=self.name, version="1", params=params, seed=self.seed, code_version=code_version()
        )

    def record(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (self.num_crops, 5), np.dtype(np.int64)

    def load(self, device: str) -> None:
        """Nothing to load."""

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        from fourmill.tokenize.crops import crop_settings

        outcomes: list[Outcome] = []
        for each in batch:
            height, width = each["image_size"]
            crops = crop_settings(
                each["key"], height, width, self.num_crops, self.seed, self.min_scale
            )
            outcomes.append({"crop_settings": crops})
        return outcomes


class TokenizeStep(Step):
    """A trained tokenizer, applied to every crop of a sample."""

    def __init__(self, folder: Path, num_crops: int, max_side: int) -> None:
        self.folder = folder
        self.num_crops = num_crops
        self.max_side = max_side
        spec = self._spec
        self.name = spec.modality
        self.reads = (spec.reads, "crop_settings", "image_size")
        self.writes = (spec.modality,)
        self.resources = Resources(memory_gib=0.8, batch_size=64)
        self.gpu_if_any = _GPU_SHARE if "network" in spec.config else 0.0

    @cached_property
    def _spec(self) -> TokenizerSpec:
        from fourmill.tokenize.registry import spec

        return spec(self.folder)

    def producer(self) -> Producer:
        from fourmill.tokenize.registry import weights_sha256

        params: dict[str, Any] = {"modality": self._spec.modality, "reads": self._spec.reads}
        if self._spec.reads == "rgb":
            params["max_side"] = self.max_side
        return Producer(
            name=f"tokenizer-{self._spec.kind}",
            version="4",
            params=params,
            weights_sha256=weights_sha256(self.folder),
            code_version=code_version(),
        )

    @cached_property
    def _definition(self) -> Modality:
        from fourmill.tokenize.registry import load

        return load(self.folder).token_modality

    def definition(self, name: str) -> Modality:
        return self._definition

    def record(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        spec = self._spec
        shape = (self.num_crops, spec.max_tokens) if spec.per_crop else (spec.max_tokens,)
        return shape, np.dtype(np.int16 if spec.vocab_size <= 2**15 else np.int32)

    def load(self, device: str) -> None:
        from fourmill.tokenize.networks import NetworkTokenizer
        from fourmill.tokenize.registry import load

        self._tokenizer = load(self.folder)
        if isinstance(self._tokenizer, NetworkTokenizer):
            self._tokenizer.to(device)

    def run(self, batch: Sequence[Sample]) -> list[Outcome]:
        from fourmill.tokenize.verify import reconstruction_errors

        labels, crops, image_sizes, keys = (
            [each[name] for each in batch]
            for name in (self._spec.reads, "crop_settings", "image_size", "key")
        )
        tokens = self._tokenizer.tokenize(labels, crops, image_sizes, keys)
        outcomes: list[dict[str, Any]] = [{self.name: row} for row in tokens]
        errors = reconstruction_errors(self._tokenizer, labels, crops, image_sizes, keys, tokens)
        for row, error in errors.items():
            outcomes[row][ERROR] = error
        return list(outcomes)


def is_fixed_size(definition: Modality) -> bool:
    """Whether all records of the modality have one size, so that a shard of it is an array."""
    return definition.kind in (Kind.TOKENS, Kind.CROPS)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of fourmill, for lineage."""
    try:
        return version("fourmill")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "checkout"
