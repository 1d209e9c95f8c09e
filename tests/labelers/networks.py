"""Small networks with random weights in place of those of a model hub.

For each expert of the hub there is a builder. It makes the expert's real architecture from a small
configuration and saves it as the hub's files are, so that the expert loads it the way that it does
on a user's machine, from the folder that `FOURMILL_WEIGHTS` names.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from tests.labelers import (
    networks_captions,
    networks_dense,
    networks_detection,
    networks_features,
)

from fourmill.labelers.base import LabelerSpec

BUILDERS: dict[str, Callable[[Path], None]] = {
    **networks_captions.BUILDERS,
    **networks_dense.BUILDERS,
    **networks_detection.BUILDERS,
    **networks_features.BUILDERS,
}


def save_network(spec: LabelerSpec, weights: Path) -> None:
    """The files of an expert's repository below `weights`, unless they are there."""
    assert spec.hub is not None
    folder = weights / spec.hub.id
    if not folder.exists():
        folder.mkdir(parents=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            BUILDERS[spec.name](folder)


def save_checkpoint(path: str, weights: Path) -> None:
    """A checkpoint of detectron2 without a network, for what only asks what it is."""
    file = weights / "detectron2" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps({"model": {}}))
