"""A few real photographs, and pictures that photographers do not take."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from tests.labelers.networks import save_checkpoint, save_network

from fourmill.labelers import registry
from fourmill.labelers.base import Labeler
from fourmill.labelers.detectron import DetectronLabeler
from fourmill.labelers.experts.marigold_normals import MarigoldNormals
from fourmill.labelers.experts.sam_edges import SAMEdges
from fourmill.labelers.instances import InstanceLabeler
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Encoding, encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def pictures() -> dict[str, np.ndarray]:
    grey = skimage.data.camera()[::4, ::4]
    strip = skimage.data.coffee()[200:201].repeat(4, axis=1)[:, :2000]
    return {
        "cat": skimage.data.chelsea(),
        "coffee": skimage.data.coffee()[:, 100:500],
        "grey": np.stack([grey] * 3, axis=-1),
        "black": np.zeros((64, 48, 3), np.uint8),
        "strip": strip,
        "tiny": skimage.data.astronaut()[100:108, 200:208],
    }


class Bench:
    """Loads each labeler once, and gives a labeler's samples what it reads."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._loaded: dict[str, Labeler] = {}
        self._samples: list[dict[str, Any]] = [
            {"key": key, "rgb": rgb, "caption": "A picture. It shows a thing!"}
            for key, rgb in pictures().items()
        ]

    def weights_of(self, name: str) -> None:
        """Random weights for an expert of a model hub, where it looks for them."""
        found = registry.labeler_class(name)
        if found.spec.hub:
            save_network(found.spec, self._weights)
        elif issubclass(found, DetectronLabeler):
            save_checkpoint(found.checkpoint, self._weights)

    def labeler(self, name: str) -> Labeler:
        if issubclass(registry.labeler_class(name), DetectronLabeler):
            pytest.skip("detectron2's networks are large: test_detectron.py runs each of them once")
        if name not in self._loaded:
            self.weights_of(name)
            self._loaded[name] = registry.get(name)
            self._loaded[name].load("cpu")
        return self._loaded[name]

    def samples(self, reads: Iterable[str]) -> list[dict[str, Any]]:
        for name in reads:
            if name not in self._samples[0]:
                self._make(name)
        return [{each: sample[each] for each in ("key", *reads)} for sample in self._samples]

    def _make(self, modality_name: str) -> None:
        maker = registry.default_maker(modality_name)
        if maker is None:  # only a corpus has it
            for sample in self._samples:
                sample[modality_name] = None
            return
        inputs = self.samples(registry.spec(maker).reads)
        for sample, labels in zip(self._samples, self.labeler(maker).label(inputs), strict=True):
            assert not isinstance(labels, SampleError)
            sample.update(labels)

    @staticmethod
    def bytes_of(labels: Any) -> dict[str, bytes]:
        """What would be stored, to compare to the last bit."""
        assert isinstance(labels, dict), labels
        return {name: encode_label(modality(name), value) for name, value in labels.items()}


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    weights = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOURMILL_WEIGHTS", str(weights))
        # a thousand questions a picture are no better a test than a few
        patch.setattr(InstanceLabeler, "points", 4)
        patch.setattr(SAMEdges, "points", 4)
        patch.setattr(MarigoldNormals, "side", 64)
        patch.setattr(MarigoldNormals, "steps", 2)
        yield Bench(weights)


@pytest.fixture
def truth_dataset(tmp_path) -> str:
    """Two shards of two pictures, of which the second is `val`, with depth and classes."""
    url = str(tmp_path / "scenes")
    dataset = Dataset.open(url, create=True)
    rng = np.random.default_rng(0)
    entries = []
    for name, draw in {
        "rgb": lambda: rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8),
        "truth_depth": lambda: rng.uniform(1, 8, (2, 64, 64)).astype(np.float32),
        "truth_semseg_coarse": lambda: rng.integers(1, 21, (2, 64, 64), dtype=np.uint8),
    }.items():
        encoding = Encoding(scale=0.001)
        made = modality(name)
        writer = dataset.writer(made, Producer(name="test", version="1"), {}, 2, encoding)
        for shard in range(2):
            labels: Any = draw()
            payloads = [encode_label(made, label, encoding) for label in labels]
            writer.commit(shard, [f"{shard}-{row}" for row in range(2)], payloads=payloads)
        entries.append(writer.finish())
    dataset.publish(entries, "scenes", splits={"train": [(0, 1)], "val": [(1, 2)]})
    return url
