"""What an expert is: a frozen network or an algorithm that labels decoded samples.

One expert is one file in `labelers/experts/`; the file's name is its name. It holds a class with a
`spec` and two methods, and ends with `LABELER = TheClass`. Nothing else has to be edited.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fourmill.manifests.errors import SampleError
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
        weights: where the weights come from, pinned (hub id and revision, or package and version).
        requires: importable packages that have to be there, with the extra that installs them.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    summary: str
    licence: str
    citation: str = ""
    weights: str = ""
    optional: tuple[str, ...] = ()
    transient: tuple[str, ...] = ()
    requires: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources()


class Labeler(ABC):
    """A pure function from samples to labels: the same input gives the same output.

    No files but its weights, no global state, no knowledge of shards or of Ray.
    """

    spec: ClassVar[LabelerSpec]

    def weights_sha256(self) -> str:
        """Digest of the weights' bytes, `""` for an algorithm; a part of its labels' lineage."""
        return ""

    @abstractmethod
    def load(self, device: str) -> None:
        """Get ready on `cpu`, `cuda`, `cuda:1`, …: the only place that imports heavy packages.

        Raises:
            MissingPackageError: weights or packages are not there; the message says what to run.
        """

    @abstractmethod
    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        """One entry a sample, in order: its labels by modality, or why it has none."""
