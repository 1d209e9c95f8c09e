"""Photographs in three tints, each tint in a folder of its own, with exact labels of each pixel."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from tests.train.conftest import LIGHT, PATCH, SIZE, light_tokens

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import decode_image, encode_label
from fourmill.manifests.modalities import Kind, Masking, Modality, modality
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.train.convert import write_model
from fourmill.train.domains import Domains
from fourmill.train.model import FourM, ModelShape
from fourmill.train.transfer.config import FinetuneConfig

TINTS = {"amber": (255, 160, 60), "azure": (70, 150, 255), "moss": (90, 200, 80)}
SHARDS, PER_SHARD, CROPS = 4, 6, 2
SIDE = 40
DENSE = ("depth", "semseg_coarse", "normal")
PIXELS = Modality(
    f"rgb@{SIZE}", Kind.IMAGE, "rgb", "jpg", Masking.PIXELS, 0, (SIZE // PATCH) ** 2, SIZE, PATCH,
    channels=3,
)  # fmt: skip


def picture(number: int) -> np.ndarray:
    """A part of a photograph, in one of the tints."""
    place = number * 7 % (SHARDS * PER_SHARD)  # parts of `val` lie among those of `train`
    top, left = 20 + 7 * place, 30 + 11 * place
    grey = skimage.data.camera()[top : top + SIDE, left : left + SIDE, None] / 255
    tint = np.array(list(TINTS.values())[number % 3])
    return ((0.4 + 0.6 * grey) * tint).astype(np.uint8)


def truths(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """What follows from the pixels: depth from light, classes from it, and one direction."""
    light = rgb.mean(-1).astype(np.float32) / 255
    depth = np.clip(0.1 + 0.8 * light, 0, 1).astype(np.float32)
    depth[:4] = 0  # unknown
    classes = (light > 0.4).astype(np.uint8)
    classes[:4] = 255  # unknown
    normal = np.full((SIDE, SIDE, 3), 128, np.uint8)
    normal[4:] = (128, 128, 255)
    return dict(zip(DENSE, (depth, classes, normal), strict=True))


def write_tinted(root: Path, names: Sequence[str] = tuple(TINTS), broken: int = -1) -> Dataset:
    """Four shards, the last one `val`.

    Args:
        names: of the tints' folders.
        broken: the number of a picture that is none.
    """
    dataset = Dataset.open(str(root), create=True)
    stored = ("rgb", "crop_settings", "source", *DENSE)
    definitions = [*(modality(name) for name in stored), LIGHT]
    writers = {
        each.name: dataset.writer(each, Producer(name="test", version="1"), {}, SHARDS)
        for each in definitions
    }
    for shard in range(SHARDS):
        numbers = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        keys = [f"p{number:03d}" for number in numbers]
        payloads: dict[str, list[bytes]] = {name: [] for name in ("rgb", "source", *DENSE)}
        settings, tokens = [], []
        for key, number in zip(keys, numbers, strict=True):
            rgb = picture(number)
            jpeg = encode_label(modality("rgb"), rgb)
            payloads["rgb"].append(b"no picture" if number == broken else jpeg)
            file = {"file": f"{names[number % 3]}/{number}.jpg"}
            payloads["source"].append(encode_label(modality("source"), file))
            for name, value in truths(decode_image(jpeg)).items():
                payloads[name].append(encode_label(modality(name), value))
            settings.append(crop_settings(key, SIDE, SIDE, CROPS))
            crops = crop_dense(rgb, Kind.IMAGE, settings[-1], (SIDE, SIDE), SIZE)
            tokens.append(light_tokens(crops))
        for name, each in payloads.items():
            writers[name].commit(shard, keys, payloads=each)
        writers["crop_settings"].commit(shard, keys, array=np.stack(settings))
        writers[LIGHT.name].commit(shard, keys, array=np.stack(tokens))
    splits = {"train": [(0, SHARDS - 1)], "val": [(SHARDS - 1, SHARDS)]}
    dataset.publish([each.finish() for each in writers.values()], "tints", splits)
    return dataset


@pytest.fixture(scope="session")
def tinted(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_tinted(tmp_path_factory.mktemp("tinted"))


def small_model(registers: int = 0, seed: int = 0) -> FourM:
    domains = Domains.of([PIXELS, LIGHT])
    shape = ModelShape(32, 2, encoder_depth=2, decoder_depth=1, registers=registers)
    return FourM(domains, shape, seed)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 4M with fresh weights, of pixels and of how light patches are."""
    place = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_model(small_model(), place, "fourmill")
    return place


@pytest.fixture
def make_finetuning(
    tinted: Dataset, model_file: Path, tmp_path: Path
) -> Callable[..., FinetuneConfig]:
    """A fine-tuning that takes a second; anything can be set otherwise."""

    def make(**options: object) -> FinetuneConfig:
        values = {
            "model": str(model_file), "root": tinted.url, "out": tmp_path / "finetuned",
            "label": "source.file",
            "classes": {name: (f"{name}/*",) for name in TINTS},
            "steps": 6, "batch_size": 6, "warmup": 2, "lr": 1e-3, "eval_every": 3,
            "checkpoint_every": 2, "log_every": 1, "dtype": "float32", "threads": 1,
            "head": {"width": 16, "finer": 2, "depth": 1},
        }  # fmt: skip
        if options.get("task", "classification") != "classification":
            del values["classes"]
        return FinetuneConfig.model_validate(values | options)

    return make
