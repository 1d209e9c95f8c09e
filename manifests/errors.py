"""Every error that fourmill raises on purpose.

    FourmillError
    ├── ConfigError           the user's configuration or command is wrong
    │   ├── NoDecoderError    tokens of a tokenizer that was loaded without what decodes them
    │   └── UnknownNameError  a name that nobody knows; the nearest known ones are suggested
    ├── MissingPackageError   something optional is not there; the message says how to get it
    ├── SourceError           a corpus cannot be read at all
    ├── DatasetError          a dataset root is not what it should be
    │   ├── ShardError        the bytes of one shard are not what its record says
    │   ├── AlignmentError    two versions disagree on the keys of a shard
    │   ├── SnapshotError     a manifest is missing, broken, or of an unknown schema
    │   └── StoreError        an object store refuses, or cannot be reached
    ├── SampleError           one sample failed: it is recorded and marked, and the run goes on
    ├── TrainingError         a training run cannot go on (a loss that is not finite, wrong data)
    └── GenerationError       a model gives scores that nothing can be drawn from

The command line prints any of them as one line, without a traceback, and exits with code 2. A
message says where, what was found, what was expected, and what to do.
"""

import difflib
from collections.abc import Iterable


class FourmillError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(FourmillError, ValueError):
    """A configuration file, an option or an argument is wrong."""


class NoDecoderError(ConfigError):
    """Tokens of a tokenizer that can only make them."""


class UnknownNameError(ConfigError):
    """A name that nobody knows.

    >>> print(UnknownNameError("labeler", "dpeth", ["depth", "edges"]))
    there is no labeler called 'dpeth'; did you mean 'depth'? Known: depth, edges
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        listing = ", ".join(names) if names else "none"
        super().__init__(f"there is no {what} called {name!r}; {hint}Known: {listing}")
        self.name = name
        self.nearest = nearest[0] if nearest else None


class MissingPackageError(FourmillError):
    """An optional package, or a file that a package carries, is not there."""


class SourceError(FourmillError):
    """A corpus cannot be read at all (a single bad sample is a `SampleError`)."""


class DatasetError(FourmillError):
    """A dataset root is not what it should be."""


class ShardError(DatasetError):
    """The bytes of one shard are not what its record says."""


class AlignmentError(DatasetError):
    """Two versions disagree on the keys of a shard, or on their order."""


class SnapshotError(DatasetError):
    """A manifest is missing, broken, or of a schema that this version does not know."""


class StoreError(DatasetError):
    """An object store refuses, or cannot be reached, after all attempts."""


class SampleError(FourmillError):
    """One sample failed at one stage; recorded in `_failed.parquet`, and the run goes on.

    Args:
        stage: what was being done (`decode`, `depth`, `tok_rgb@224`, …).
        reason: what was found and what was expected, in one sentence.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)  # both in `args`, so that the error survives pickling
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


class TrainingError(FourmillError):
    """A training run cannot go on."""


class GenerationError(FourmillError):
    """A model gives scores that nothing can be drawn from."""
