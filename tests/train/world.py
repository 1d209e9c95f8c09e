"""Eight photographs with depth and captions, tokenized by real tokenizers, and a run on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import yaml
from skimage.filters import gaussian

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import decode_image, encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.registry import load, save_text_tokenizers
from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer
from fourmill.tokenize.vocabulary import train_vocabulary
from fourmill.train import commands

NAMES = ("astronaut", "camera", "chelsea", "coffee", "coins", "page", "rocket", "clock")
CAPTIONS = (
    "a woman in an orange suit", "a man behind a camera", "the face of a cat",
    "a cup of coffee on a table", "old coins in rows", "a page of a book", "a rocket at night",
    "the hands of a clock",
)  # fmt: skip
SIZE, PATCH, SHARDS = 32, 8, 4  # the last shard is `val`


@dataclass(frozen=True)
class World:
    """Attributes:
    file: the YAML file of the run.
    """

    root: str
    tokenizers: Path
    run: Path
    file: Path
    images: dict[str, np.ndarray]
    depths: dict[str, np.ndarray]


def make_world(folder: Path) -> World:
    files = {name: _photograph(name) for name in NAMES}
    images = {name: decode_image(data) for name, data in files.items()}
    depths = {
        name: np.clip(gaussian(each.mean(-1), 6) / 255, 0, 1).astype(np.float32)
        for name, each in images.items()
    }
    tokenizers = folder / "tokenizers"
    vocabulary = train_vocabulary(CAPTIONS * 3, 6_000)
    save_text_tokenizers(tokenizers, vocabulary, ["caption"], max_tokens={"caption": 16})
    sizes = [each.shape[:2] for each in images.values()]
    for name, labels in (("depth", depths), ("rgb", images)):
        train_tokenizer(
            modality(name), SIZE, PATCH, 32, VQTrainConfig(dim=16, steps=0, num_crops=4, heads=2),
            list(labels.values()), sizes, list(NAMES), tokenizers / f"tok_{name}@{SIZE}",
        )  # fmt: skip
    root = folder / "dataset"
    _write(Dataset.open(str(root), create=True), tokenizers, files, depths)
    section = {
        "out": str(folder / "run"), "pixel_patch": 8, "steps": 2, "batch_size": 4,
        "eval_every": 2, "model": {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
        "masking": {"input_tokens": 16, "target_tokens": 16}, "threads": 1, "log_every": 1,
    }  # fmt: skip
    whole = {"root": str(root), "tokenizers": str(tokenizers), "train": section}
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(whole))
    commands.train(file)
    return World(str(root), tokenizers, folder / "run", file, images, depths)


def _photograph(name: str) -> bytes:
    image = getattr(skimage.data, name)()[:200, :240]
    image = np.dstack([image] * 3) if image.ndim == 2 else image[..., :3]
    return encode_label(modality("rgb"), np.ascontiguousarray(image))


def _write(dataset, tokenizers, files, depths) -> None:
    loaded = {each.name: load(each) for each in sorted(tokenizers.iterdir())}
    stored = ["rgb", "crop_settings", "depth", "caption"]
    definitions = [modality(name) for name in stored]
    definitions += [each.token_modality for each in loaded.values()]
    producer = Producer(name="test", version="1")
    writers = {each.name: dataset.writer(each, producer, {}, SHARDS) for each in definitions}
    per_shard = len(NAMES) // SHARDS
    for shard in range(SHARDS):
        rows = range(shard * per_shard, (shard + 1) * per_shard)
        names = [NAMES[row] for row in rows]
        labels = {
            "rgb": [decode_image(files[name]) for name in names],
            "depth": [depths[name] for name in names],
            "caption": [CAPTIONS[row] for row in rows],
        }
        sizes = [each.shape[:2] for each in labels["rgb"]]
        crops = [crop_settings(name, *size, 2) for name, size in zip(names, sizes, strict=True)]
        for name, each in labels.items():
            payloads = [encode_label(modality(name), label) for label in each]
            if name == "rgb":
                payloads = [files[each] for each in names]
            writers[name].commit(shard, names, payloads=payloads)
        writers["crop_settings"].commit(shard, names, array=np.stack(crops))
        for name, tokenizer in loaded.items():
            tokens = tokenizer.tokenize(labels[tokenizer.spec.reads], crops, sizes, names)
            writers[name].commit(shard, names, array=tokens)
    splits = {"train": [(0, SHARDS - 1)], "val": [(SHARDS - 1, SHARDS)]}
    dataset.publish([writer.finish() for writer in writers.values()], "photographs", splits)
