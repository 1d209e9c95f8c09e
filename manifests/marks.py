"""Marks: labels that say of each sample whether to keep it; `fourmill mark` makes them.

A mark is `{"keep": true, "values": {…}}`; `values` holds what was measured, by measure.
"""

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.shards import Shard


def kept_rows(shard: Shard) -> set[int]:
    """The rows of a shard of marks whose samples are to keep.

    Raises:
        ConfigError: its labels are no marks.
        ShardError: the file is broken.
    """
    kept = set()
    for row in range(shard.record.samples):
        mark = shard.label(row)
        if not isinstance(mark, dict) or "keep" not in mark:
            raise ConfigError(
                f"{shard.entry.modality} holds no marks, so it cannot choose samples: make marks "
                f"with `fourmill mark`"
            )
        if mark["keep"]:
            kept.add(row)
    return kept
