"""Photographs with labels of many kinds, tokenizers and tokens of them, and runs on them.

Tokenizers and model have weights that are as good as random: tests are of what happens to what is
given and held, not of how well anything is predicted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import yaml
from PIL import Image
from skimage.filters import gaussian

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.registry import load, save_text_tokenizers
from fourmill.tokenize.values import network_inputs
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vocabulary import train_vocabulary
from fourmill.tokenize.vq import VQTokenizer
from fourmill.train import commands

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
CAPTIONS = ("a woman in an orange suit", "a cat", "a cup of coffee", "a rocket at night")
SIZE, PATCH = 32, 8
_DENSE = (
    ("rgb", SIZE), ("rgb", 2 * SIZE), ("depth", SIZE), ("depth", 2 * SIZE),
    ("semseg_coarse", SIZE), ("vit_s_focus", SIZE),
)  # fmt: skip
TEXTS = ("caption", "det", "color_palette", "metadata")
SHAPE = {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}


@dataclass(frozen=True)
class Labelled:
    """Where everything is."""

    root: Path
    tokenizers: Path
    photo: Path

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(str(self.root))

    def train(self, folder: Path, **options: Any) -> Path:
        """A run of one step; its YAML file."""
        section = {
            "out": str(folder / "run"), "pixel_patch": PATCH, "steps": 1, "batch_size": 2,
            "model": SHAPE, "masking": {"input_tokens": 8, "target_tokens": 8}, "threads": 1,
            "eval_samples": 1,
        }  # fmt: skip
        whole = {"root": str(self.root), "tokenizers": str(self.tokenizers)}
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(whole | {"train": section | options}))
        commands.train(path)
        return path


def make_labelled(folder: Path) -> Labelled:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizers = folder / "tokenizers"
    torch.manual_seed(0)
    for name, size in _DENSE:
        vq = dense_tokenizer(name, size)
        vq.save(tokenizers / vq.spec.modality)
    vector = VectorTokenizer(
        modality("DINOv2-B14-global"),
        BottleneckAutoencoder(
            BottleneckConfig(
                channels=768, dim=16, encoder_depth=1, decoder_depth=1, latent=32, books=4,
                codes=32,
            )
        ),
        "dinov2_global",
    )  # fmt: skip
    vector.save(tokenizers / vector.spec.modality)
    vocabulary = train_vocabulary([*CAPTIONS, "a dog"] * 3, 4_500)
    lengths = {"caption": 12, "det": 24, "color_palette": 12, "metadata": 12}
    save_text_tokenizers(tokenizers, vocabulary, TEXTS, max_tokens=lengths)
    _write(folder / "dataset", tokenizers)
    photo = folder / "photo.png"
    Image.fromarray(skimage.data.rocket()).save(photo)
    return Labelled(folder / "dataset", tokenizers, photo)


def dense_tokenizer(name: str, size: int) -> VQTokenizer:
    definition = modality(name)
    shape = AutoencoderConfig(
        **network_inputs(definition, size, PATCH, class_width=4), dim=16, encoder_depth=1,
        decoder_depth=1, heads=2, latent=4, codes=81, levels=(3, 3, 3, 3),
    )  # fmt: skip
    return VQTokenizer(definition, size, PATCH, VQAutoencoder(shape))


def _labels() -> dict[str, list[Any]]:
    images = [np.ascontiguousarray(getattr(skimage.data, name)()[:200, :240]) for name in PHOTOS]
    grey = [gaussian(each.mean(-1), 8) for each in images]
    box = {"boxes": [0.1, 0.2, 0.5, 0.6], "class_name": "dog", "score": 0.9}
    other = {"boxes": [0.4, 0.5, 0.9, 0.9], "class_name": "cat", "score": 0.8}
    vectors = np.random.default_rng(0).normal(size=(len(PHOTOS), 768)).astype(np.float32)
    return {
        "rgb": images,
        "caption": list(CAPTIONS),
        "depth": [(each / 256).astype(np.float32) for each in grey],
        "semseg_coarse": [(each // 13).astype(np.uint8) for each in grey],
        "vit_s_focus": [_features(each) for each in grey],
        "det": [{"instances": [box, other]}] * len(PHOTOS),
        "color_palette": [[{"2": [[200, 10, 10], [10, 10, 200]]}]] * len(PHOTOS),
        "metadata": [{"brightness": 100.0, "n_humans": 1}] * len(PHOTOS),
        "DINOv2-B14-global": list(vectors),
    }


def _features(grey: np.ndarray) -> np.ndarray:
    """Numbers that differ from place to place, `[384, 8, 8]`."""
    cells = grey[:: len(grey) // 8, :: grey.shape[1] // 8][:8, :8]
    return np.sin(np.linspace(0, 1, 384)[:, None, None] * cells).astype(np.float16)


def _write(root: Path, tokenizers: Path) -> None:
    """Two shards, of which the last is held out."""
    dataset = Dataset.open(str(root), create=True)
    labels = _labels()
    images = labels["rgb"]
    sizes = [each.shape[:2] for each in images]
    crops = [
        crop_settings(*each, 2) for each in zip(PHOTOS, *zip(*sizes, strict=True), strict=True)
    ]
    made = [load(each) for each in sorted(tokenizers.iterdir())]
    arrays = {"crop_settings": (modality("crop_settings"), np.stack(crops))}
    for each in made:
        name = each.spec.modality
        arrays[name] = (each.token_modality, _tokens(each, labels, crops, sizes))
    entries = []
    for definition, array in arrays.values():
        writer = dataset.writer(definition, Producer(name="test", version="1"), {}, 2)
        for shard in range(2):
            rows = slice(2 * shard, 2 * shard + 2)
            writer.commit(shard, PHOTOS[rows], array=array[rows])
        entries.append(writer.finish())
    for name, values in labels.items():
        writer = dataset.writer(modality(name), Producer(name="test", version="1"), {}, 2)
        for shard in range(2):
            rows = slice(2 * shard, 2 * shard + 2)
            payloads = [encode_label(modality(name), each) for each in values[rows]]
            writer.commit(shard, PHOTOS[rows], payloads=payloads)
        entries.append(writer.finish())
    dataset.publish(entries, "photographs and labels", {"train": [(0, 1)], "val": [(1, 2)]})


def _tokens(
    tokenizer: Tokenizer, labels: dict[str, list[Any]], crops: list[Any], sizes: list[Any]
) -> np.ndarray:
    return tokenizer.tokenize(labels[tokenizer.spec.reads], crops, sizes, PHOTOS)
