"""Labels of a few photographs, made by arithmetic, to train tokenizers on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from skimage.transform import resize

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import Kind, Modality, modality, register
from fourmill.manifests.snapshots import Producer
from fourmill.train.tokenizers.config import TokenizerTrainConfig

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "clock", "coins", "page")
SHARDS, PER_SHARD, SPOILT = 4, 2, "chelsea"
MEANS = Modality("grid_means", Kind.VECTOR, "grid_means", "npy", channels=12)
FEATURES = Modality("patch_colours", Kind.FEATURE_MAP, "patch_colours", "npy", channels=4)
GREYS = Modality(
    "greys", Kind.CLASSES, "greys", "png", channels=3, classes=("dark", "middle", "bright")
)


def labels_of(name: str) -> dict[str, object]:
    """Labels of one photograph; the middle of its mask is valid alone."""
    image = getattr(skimage.data, name)()[:192, :240]
    image = np.dstack([image] * 3) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])
    grey = image.mean(axis=2)
    mask = np.zeros(grey.shape, np.uint8)
    mask[48:144, 60:180] = 255
    small = resize(image, (12, 15), anti_aliasing=True)
    features = np.concatenate([small.transpose(2, 0, 1), small.mean(axis=2)[None]])
    return {
        "rgb": image,
        "depth": (grey / 255).astype(np.float32),
        "canny_edge": mask,
        "greys": (grey // 86).astype(np.uint8),
        "patch_colours": features.astype(np.float16),
        "grid_means": resize(image, (2, 2), anti_aliasing=True).reshape(-1).astype(np.float32),
    }


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight photographs, the last two in `val`; one of the others is a truncated JPEG."""
    dataset = Dataset.open(str(tmp_path_factory.mktemp("labelled")), create=True)
    definitions = [modality(each) for each in ("rgb", "depth", "canny_edge")]
    for each in (GREYS, FEATURES, MEANS):
        register(each)
        definitions.append(each)
    writers = {
        each.name: dataset.writer(each, Producer(name="test", version="1"), {}, SHARDS)
        for each in definitions
    }
    for shard in range(SHARDS):
        names = PHOTOS[shard * PER_SHARD : (shard + 1) * PER_SHARD]
        rows = [labels_of(name) for name in names]
        for definition in definitions:
            payloads = [encode_label(definition, row[definition.name]) for row in rows]
            if definition.name == "rgb":
                payloads = [
                    data[: len(data) // 2] if name == SPOILT else data
                    for name, data in zip(names, payloads, strict=True)
                ]
            writers[definition.name].commit(shard, names, payloads=payloads)
    splits = {"train": [(0, SHARDS - 1)], "val": [(SHARDS - 1, SHARDS)]}
    dataset.publish([each.finish() for each in writers.values()], "photographs", splits)
    return dataset


@pytest.fixture
def make_config(labelled: Dataset, tmp_path: Path) -> Callable[..., TokenizerTrainConfig]:
    """A training that takes a second; anything can be set otherwise."""

    def make(**options: object) -> TokenizerTrainConfig:
        values = {
            "root": labelled.url, "out": tmp_path / "run", "modality": "rgb", "size": 32,
            "patch": 8, "steps": 6, "batch_size": 4, "warmup": 2, "checkpoint_every": 2,
            "eval_every": 3, "log_every": 1, "eval_samples": 2, "dtype": "float32", "threads": 1,
            "readers": 2, "network": NETWORKS["vq"],
        }  # fmt: skip
        return TokenizerTrainConfig.model_validate(values | options)

    return make


NETWORKS: dict[str, dict[str, object]] = {
    "vq": {
        "kind": "vq", "dim": 32, "encoder_depth": 1, "decoder_depth": 1, "heads": 2, "latent": 8,
        "codes": 32,
    },
    "levels": {
        "kind": "vq", "dim": 32, "encoder_depth": 1, "decoder_depth": 1, "heads": 2,
        "levels": (5, 5, 3), "start": "random",
    },
    "vectors": {
        "kind": "vectors", "dim": 32, "encoder_depth": 1, "decoder_depth": 1, "latent": 8,
        "books": 4, "codes": 8,
    },
    "diffusion": {
        "kind": "diffusion", "dim": 32, "encoder_depth": 1, "heads": 2, "latent": 8, "codes": 32,
        "decoder": {"width": 8, "factors": (1, 2), "depth": 1, "patch": 4, "groups": 4},
    },
}  # fmt: skip
"""Small networks of all kinds."""
