"""A small dataset of real photographs, with tokens that arithmetic makes of patches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from tests.train.world import World, make_world

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import decode_image, encode_label
from fourmill.manifests.modalities import Kind, Masking, Modality, modality, token_modality
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.train.config import TrainConfig

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "coins", "page", "rocket", "clock")
SIZE, PATCH = 32, 8
SHARDS = 4  # the last one is `val`
CROPS = 3

COLOUR = token_modality("colour", SIZE, PATCH, 512, of="rgb")
LIGHT = token_modality("light", SIZE, PATCH, 64, of="rgb")
CAPTION = Modality(
    "tok_caption", Kind.TOKENS, "tok_caption", "npy", Masking.SEQUENCE, 4400, 12,
    token_of="caption",
)  # fmt: skip


def patch_means(crops: np.ndarray) -> np.ndarray:
    side = SIZE // PATCH
    cells = crops.reshape(len(crops), side, PATCH, side, PATCH, 3).mean((2, 4))
    return cells.reshape(len(crops), side * side, 3)


def colour_tokens(crops: np.ndarray) -> np.ndarray:
    """Three bits a channel of the mean colour of each patch."""
    bits = (patch_means(crops) // 32).astype(np.int16)
    return bits[..., 0] * 64 + bits[..., 1] * 8 + bits[..., 2]


def light_tokens(crops: np.ndarray) -> np.ndarray:
    return (patch_means(crops).mean(-1) // 4).astype(np.int16)


def caption_tokens(row: int) -> np.ndarray:
    words = [4300 + row, 4320 + row % 3, 4340, 3]  # the last is [EOS]
    return np.array(words + [0] * (CAPTION.max_tokens - len(words)), np.int16)


def write_dataset(root: Path) -> Dataset:
    dataset = Dataset.open(str(root), create=True)
    definitions = [modality("rgb"), modality("crop_settings"), COLOUR, LIGHT, CAPTION]
    writers = [
        dataset.writer(each, Producer(name="test", version="1"), {}, SHARDS) for each in definitions
    ]
    per_shard = len(PHOTOS) // SHARDS
    for shard in range(SHARDS):
        names = PHOTOS[shard * per_shard : (shard + 1) * per_shard]
        images: list[bytes] = []
        settings, crops = [], []
        for name in names:
            image = getattr(skimage.data, name)()[:200, :240]
            image = np.dstack([image] * 3) if image.ndim == 2 else image[..., :3]
            images.append(encode_label(modality("rgb"), np.ascontiguousarray(image)))
            stored = decode_image(images[-1])
            settings.append(crop_settings(name, stored.shape[0], stored.shape[1], CROPS))
            crops.append(crop_dense(stored, Kind.IMAGE, settings[-1], stored.shape[:2], SIZE))
        rows = range(shard * per_shard, (shard + 1) * per_shard)
        rgb, crop_setting, colour, light, caption = writers
        rgb.commit(shard, names, payloads=images)
        crop_setting.commit(shard, names, array=np.stack(settings))
        colour.commit(shard, names, array=np.stack([colour_tokens(each) for each in crops]))
        light.commit(shard, names, array=np.stack([light_tokens(each) for each in crops]))
        caption.commit(shard, names, array=np.stack([caption_tokens(row) for row in rows]))
    splits = {"train": [(0, SHARDS - 1)], "val": [(SHARDS - 1, SHARDS)]}
    dataset.publish([writer.finish() for writer in writers], "photographs", splits)
    return dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """With real tokenizers, and a trained run."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def make_config(dataset: Dataset, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A run that takes a second or two; anything can be set otherwise."""

    def make(**options: object) -> TrainConfig:
        values = {
            "root": dataset.url,
            "tokenizers": tmp_path / "tokenizers",
            "out": tmp_path / "run",
            "pixel_patch": PATCH,
            "model": {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
            "masking": {"input_tokens": 16, "target_tokens": 16},
            "steps": 6,
            "batch_size": 4,
            "warmup": 2,
            "checkpoint_every": 2,
            "eval_every": 3,
            "log_every": 1,
            "dtype": "float32",
            "threads": 1,
        }
        return TrainConfig.model_validate(values | options)

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
