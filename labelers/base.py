"""What an expert is: a frozen network or an algorithm that labels decoded samples.

One expert is one file in `labelers/experts/`; the file's name is its name. It holds a class with a
`spec` and two methods, and ends with `LABELER = TheClass`. Nothing else has to be edited.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label

Sample = Mapping[str, Any]
"""What a labeler sees of one sample: `key`, and the label of every modality that it reads.

`rgb` is uint8 `[H, W, 3]`, upright (EXIF orientation applied), sRGB, and perhaps smaller than the
stored image; everything dense covers the whole image at a resolution of its own.
"""


@dataclass(frozen=True)
class Resources:
    """What one running instance of a labeler needs; declared, never detected.

    Attributes:
        gpus: 0 for a labeler that is fine on a CPU; it uses a GPU when `load` is told to.
        memory_gib: main memory of a process that hosts it alone, interpreter and torch included
            (half a GiB).
        batch_size: samples per call of `label`.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float = 1.0
    batch_size: int = 16


@dataclass(frozen=True)
class LabelerSpec:
    """What is known of a labeler without loading it.

    Attributes:
        version: raised whenever the labels of the same image would change.
        reads: modalities that it needs; `rgb` for most.
        writes: modalities that it makes.
        optional: those of `reads` that a sample may lack; they are then given as `None`. A sample
            that lacks one of the others fails at this labeler.
        transient: those of `writes` that are handed to other labelers and tokenizers but are not
            worth storing (feature maps), unless a configuration asks for them.
        licence: of code and weights together, as a user must know it.
        citation: paper or project, in one line.
        alternative: whether another labeler is the one that makes what it writes unless a user
            asks for this one. Of all makers of a modality exactly one is no alternative.
        hub: the repository of a model hub that its weights come from.
        weights: where else the weights come from, pinned (package and version).
        weights_mb: millions of bytes of the weights, as published; 0 where that is not known.
        requires: importable packages that have to be there, with the extra that installs them.
        runtime_env: a Ray runtime environment for its workers, where its dependencies clash with
            this package's: `{"pip": ["torch==2.1.0"]}`, `{"conda": …}`, `{"image_uri": …}`,
            `{"env_vars": …}`. Such a labeler gets workers of its own.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    summary: str
    licence: str
    citation: str = ""
    alternative: bool = False
    hub: HubWeights | None = None
    weights: str = ""
    weights_mb: int = 0
    optional: tuple[str, ...] = ()
    transient: tuple[str, ...] = ()
    requires: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = Resources()

    @property
    def weights_source(self) -> str:
        """Where the weights come from, `""` for an algorithm."""
        return str(self.hub) if self.hub else self.weights

    @property
    def comes_with_packages(self) -> bool:
        """Whether its weights, if it has any, travel in ordinary packages or in this one."""
        source = self.weights_source
        return not source or source.startswith(("pip ", "in this package"))


class Labeler(ABC):
    """A pure function from samples to labels: the same input gives the same output.

    No files but its weights, no global state, no knowledge of shards or of Ray.
    """

    spec: ClassVar[LabelerSpec]

    def weights_sha256(self) -> str:
        """Digest of the weights' bytes, `""` for an algorithm; a part of its labels' lineage.

        Raises:
            MissingPackageError: they are not on this machine, and the hub cannot be asked.
        """
        return self.spec.hub.sha256() if self.spec.hub else ""

    @abstractmethod
    def load(self, device: str) -> None:
        """Get ready on `cpu`, `cuda`, `cuda:1`, …: the only place that imports heavy packages.

        Raises:
            MissingPackageError: weights or packages are not there; the message says what to run.
        """

    @abstractmethod
    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        """One entry a sample, in order: its labels by modality, or why it has none."""
