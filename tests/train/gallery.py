"""The photographs of `world` with normals, classes, boxes and vectors, a run, and truths beside."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from tests.train.world import NAMES, PATCH, SHARDS, SIZE

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import empty_label, encode_label
from fourmill.manifests.modalities import COARSE_CLASSES, Kind, Modality, modality, register
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.registry import load, save_text_tokenizers
from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vocabulary import train_vocabulary
from fourmill.train import commands

MOOD = Modality("mood", Kind.VECTOR, "mood", "npy", channels=6)
FEW = Modality(
    "semseg_few", Kind.CLASSES, "semseg_few", "png", channels=2, classes=("wall", "dragon")
)
NO_TRUTH = "clock"  # one of the two of `val`, has no truth_normal; none has a truth_det


@dataclass(frozen=True)
class Gallery:
    """Attributes:
    labels: by modality and key, as they are stored.
    """

    root: str
    run: Path
    tokenizers: Path
    labels: dict[str, dict[str, object]]


def make_gallery(folder: Path, images: Mapping[str, np.ndarray]) -> Gallery:
    for each in (MOOD, FEW):
        register(each)
    labels = _labels(images)
    tokenizers = folder / "tokenizers"
    vocabulary = train_vocabulary(["face thing"] * 50, 4_400)
    save_text_tokenizers(tokenizers, vocabulary, ["det"], max_tokens={"det": 24})
    sizes = [images[name].shape[:2] for name in NAMES]
    for name in ("normal", "semseg_coarse"):
        train_tokenizer(
            modality(name), SIZE, PATCH, 32, VQTrainConfig(dim=16, steps=0, num_crops=4, heads=2),
            [labels[name][key] for key in NAMES], sizes, list(NAMES),
            tokenizers / f"tok_{name}@{SIZE}",
        )  # fmt: skip
    network = BottleneckAutoencoder(
        BottleneckConfig(
            channels=6, dim=8, encoder_depth=0, decoder_depth=0, latent=8, books=4, codes=16
        )
    )
    VectorTokenizer(MOOD, network.eval()).save(tokenizers / "tok_mood")
    root = folder / "dataset"
    _write(Dataset.open(str(root), create=True), tokenizers, labels)
    section = {
        "out": str(folder / "run"), "pixel_patch": PATCH, "steps": 2, "batch_size": 4,
        "eval_every": 2, "model": {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
        "masking": {"input_tokens": 16, "target_tokens": 16}, "threads": 1, "log_every": 1,
    }  # fmt: skip
    file = folder / "run.yaml"
    whole = {"root": str(root), "tokenizers": str(tokenizers), "train": section}
    file.write_text(yaml.safe_dump(whole))
    commands.train(file)
    return Gallery(str(root), folder / "run", tokenizers, labels)


def _labels(images: Mapping[str, np.ndarray]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for number, (key, image) in enumerate(images.items()):
        grey = image.mean(-1) / 255  # 0..1
        down, right = np.gradient(grey)
        vectors = np.stack([-20 * right, -20 * down, np.ones_like(grey)], -1)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        normal = np.rint(127.5 * (vectors + 1)).astype(np.uint8)
        draw = np.random.default_rng(number)
        box = {"boxes": [0.1, 0.2, 0.3 + 0.05 * number, 0.9], "class_name": "face", "score": 1.0}
        labels = {
            "rgb": image,
            "normal": normal,
            "truth_normal": normal,
            "truth_depth": grey.astype(np.float32),
            "semseg_coarse": (5 * grey).clip(0, 4).astype(np.uint8),
            "semseg_few": (2 * grey).clip(0, 1).astype(np.uint8),
            "det": {"instances": [box]},
            "truth_det": {"instances": [box]},
            "mood": draw.normal(size=6).astype(np.float32),
            "imagenet": [{"class_name": ("cat", "cup")[number % 2], "score": 1.0}],
        }
        for name, each in labels.items():
            found.setdefault(name, {})[key] = each
    assert len(COARSE_CLASSES) > 4
    return found


def _write(dataset: Dataset, tokenizers: Path, labels: Mapping[str, Mapping[str, object]]) -> None:
    loaded = {each.name: load(each) for each in sorted(tokenizers.iterdir())}
    definitions = [modality(name) for name in (*labels, "crop_settings")]
    definitions += [each.token_modality for each in loaded.values()]
    producer = Producer(name="test", version="1")
    writers = {each.name: dataset.writer(each, producer, {}, SHARDS) for each in definitions}
    per_shard = len(NAMES) // SHARDS
    for shard in range(SHARDS):
        keys = NAMES[shard * per_shard : (shard + 1) * per_shard]
        for name, each in labels.items():
            is_partly = name == "truth_normal"
            there = [
                name != "truth_det" and not (is_partly and key == NO_TRUTH) for key in keys
            ]  # fmt: skip
            payloads = [
                encode_label(modality(name), each[key]) if is_there else empty_label(modality(name))
                for key, is_there in zip(keys, there, strict=True)
            ]
            writers[name].commit(shard, keys, payloads=payloads, valid=there)
        sizes = [labels["rgb"][key].shape[:2] for key in keys]  # type: ignore[attr-defined]
        crops = [crop_settings(key, *size, 2) for key, size in zip(keys, sizes, strict=True)]
        writers["crop_settings"].commit(shard, keys, array=np.stack(crops))
        for name, tokenizer in loaded.items():
            own = [labels[tokenizer.spec.reads][key] for key in keys]
            tokens = tokenizer.tokenize(own, crops, sizes, keys)
            writers[name].commit(shard, keys, array=tokens)
    splits = {"train": [(0, SHARDS - 1)], "val": [(SHARDS - 1, SHARDS)]}
    dataset.publish([writer.finish() for writer in writers.values()], "gallery", splits)
