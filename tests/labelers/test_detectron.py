"""Checkpoints of detectron2 are found, read as arrays alone, and its networks are real ones."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from fourmill.labelers import detectron_weights, registry
from fourmill.labelers.detectron import DetectronLabeler
from fourmill.manifests.errors import MissingPackageError


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('was run')",)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FOURMILL_OFFLINE", "1")
    return tmp_path / "weights" / "detectron2"


def test_a_checkpoint_is_read_where_it_was_put(weights: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"put it into \$FOURMILL_WEIGHTS/detectron2/a/b"):
        detectron_weights.checkpoint("a/b.pkl")
    (weights / "a").mkdir(parents=True)
    arrays = OrderedDict(weight=np.arange(3, dtype=np.float32), count=np.int64(7))
    (weights / "a" / "b.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    found = detectron_weights.load_arrays(detectron_weights.checkpoint("a/b.pkl"))
    assert found["weight"].tolist() == [0, 1, 2]
    assert found["count"] == 7
    assert len(detectron_weights.sha256("a/b.pkl")) == 64


@pytest.mark.parametrize("content", [pickle.dumps({"model": {"x": Harmful()}}), b"<html>", b""])
def test_what_is_no_checkpoint_is_refused_and_never_run(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(content)
    with pytest.raises(MissingPackageError, match="no checkpoint of detectron2"):
        detectron_weights.load_arrays(file)


@pytest.mark.parametrize("name", ["detectron2", "vitdet"])
def test_a_network_is_built_and_says_where_things_are(name: str) -> None:
    pytest.importorskip("detectron2", reason="detectron2 is built from its own repository")
    import torch

    labeler = registry.get(name)
    assert isinstance(labeler, DetectronLabeler)
    labeler._torch, labeler._device = torch, "cpu"
    labeler.threshold = 0.0  # type: ignore[misc]
    labeler._network = labeler.build()
    labeler._network.model.roi_heads.mask_on = False
    labeler._network.model.eval()
    (labels,) = labeler.label([{"key": "x", "rgb": np.zeros((64, 96, 3), np.uint8)}])
    assert isinstance(labels, dict)
    assert set(labels) == {"det"}
