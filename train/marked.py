"""Which rows marks keep."""

import numpy as np
from numpy.typing import NDArray

from fourmill.manifests.marks import kept_rows
from fourmill.train.arrays import Rows


def kept(rows: Rows, marks: str) -> NDArray[np.int64]:
    """The rows whose samples a modality of marks keeps, in order; shards of an object store are
    fetched for it, one by one.

    Raises:
        UnknownNameError: the snapshot has no such modality.
        ConfigError: it holds no marks.
    """
    found = [
        int(start) + row
        for number, start in enumerate(rows.starts[:-1])
        for row in sorted(kept_rows(rows.shard(marks, number)))
    ]
    return np.array(found, np.int64)
