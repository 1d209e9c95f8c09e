"""Codecs of masks and of poses are trained on the labels that hold them, and spell those labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from scipy.spatial.transform import Rotation
from skimage.segmentation import felzenszwalb

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import PARTS, modality
from fourmill.manifests.run_lengths import masks_label, read_masks
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize import registry
from fourmill.tokenize.instances import SamInstancesTokenizer
from fourmill.tokenize.masks import MaskTokenizer
from fourmill.tokenize.parts import parts_of
from fourmill.tokenize.poses import JOINTS, PosesTokenizer
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vocabulary import train_vocabulary
from fourmill.train.tokenizers.config import TokenizerTrainConfig
from fourmill.train.tokenizers.loop import train
from fourmill.train.tokenizers.plan import plan_run

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina")
EMPTY = "empty"  # a picture without instances and people
SMALL = {
    "sam_mask": {
        "kind": "vq", "dim": 64, "heads": 2, "encoder_depth": 0, "decoder_depth": 1, "reach": 1,
        "codes": 256,
    },
    "body_pose": {
        "kind": "vectors", "dim": 64, "encoder_depth": 1, "decoder_depth": 1, "latent": 64,
        "books": 8, "codes": 64,
    },
}  # fmt: skip


def segments(image: np.ndarray) -> dict[str, object]:
    """Regions of a photograph, as an instance segmentation gives them."""
    plane = felzenszwalb(image, scale=300, min_size=300)
    return masks_label([plane == each for each in np.unique(plane)])


def people(count: int, seed: int) -> dict[str, object]:
    """Bodies whose joints are bent a little, all by what a few moods say."""
    draws = np.random.default_rng(seed)
    moods = np.random.default_rng(0).normal(size=(3, JOINTS, 3))
    bends = np.einsum("cm,mjx->cjx", draws.normal(size=(count, 3)), 0.25 * moods)
    bodies = Rotation.from_rotvec(bends.reshape(-1, 3)).as_matrix().reshape(count, JOINTS, 3, 3)
    return {
        "bbox_xyxy": [[10, 10, 100, 150]] * count,
        "pred_smpl_params": {"body_pose": bodies.tolist()},
    }


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photographs with masks and people, and one without either; the last two are held out."""
    dataset = Dataset.open(str(tmp_path_factory.mktemp("crowd")), create=True)
    keys = (PHOTOS[0], EMPTY, *PHOTOS[1:])
    shards = [keys[:5], keys[5:]]
    names = ("rgb", "sam_instance", "human_poses")
    writers = {
        name: dataset.writer(modality(name), Producer(name="test", version="1"), {}, len(shards))
        for name in names
    }
    for number, some in enumerate(shards):
        rows = []
        for seed, key in enumerate(some):
            image = np.zeros((64, 64, 3), np.uint8)
            if key != EMPTY:
                image = np.ascontiguousarray(getattr(skimage.data, key)()[::2, ::2][:240, :240])
            is_empty = key == EMPTY
            rows.append(
                {
                    "rgb": image,
                    "sam_instance": {"annotations": []} if is_empty else segments(image),
                    "human_poses": {} if is_empty else people(40, 10 * number + seed),
                }
            )
        for name in names:
            payloads = [encode_label(modality(name), row[name]) for row in rows]
            writers[name].commit(number, some, payloads=payloads)
    finished = [each.finish() for each in writers.values()]
    dataset.publish(finished, "crowd", {"train": [(0, 1)], "val": [(1, 2)]})
    return dataset


def config_of(crowd: Dataset, out: Path, part: str, **options: object) -> TokenizerTrainConfig:
    values = {
        "root": crowd.url, "out": out, "modality": part, "size": 64, "patch": 16, "steps": 200,
        "batch_size": 16, "warmup": 10, "lr": 3e-3, "checkpoint_every": 200, "eval_every": 200,
        "log_every": 50, "eval_samples": 60, "dtype": "float32", "threads": 1, "ema": 0.9,
        "network": SMALL[part],
    }  # fmt: skip
    return TokenizerTrainConfig.model_validate(values | options)


def trained(
    crowd: Dataset, out: Path, part: str, **options: object
) -> tuple[Path, dict[str, float]]:
    run = plan_run(config_of(crowd, out, part, **options))
    train(run)
    metrics: dict[str, float] = json.loads((run.tokenizer / "training.json").read_text())["metrics"]
    return run.tokenizer, metrics


def test_a_codec_of_masks_learns_from_the_instances_of_a_dataset_and_spells_them(
    crowd: Dataset, tmp_path: Path
) -> None:
    folder, metrics = trained(crowd, tmp_path, "sam_mask")
    codec = registry.load(folder)
    assert isinstance(codec, MaskTokenizer)
    label = next(each["sam_instance"] for each in crowd.samples(["sam_instance"], split="val"))
    masks = [each(False) for each in parts_of("sam_mask", label)]
    of_the_boxes = np.mean([np.mean(np.asarray(each) > 0) for each in masks])
    assert metrics["iou"] > of_the_boxes + 0.1
    vocabulary = train_vocabulary(["a picture"], 5000)
    tokenizer = SamInstancesTokenizer(
        vocabulary, 256, codec, size=64, definition=modality("sam_instance")
    )
    mask = read_masks(label)[0].mask()
    found = tokenizer.decode(tokenizer.encode(label, "key", image_size=mask.shape))
    assert read_masks(found), "some of the points lie in a mask"


def test_a_codec_of_poses_learns_from_the_people_of_a_dataset_and_spells_them(
    crowd: Dataset, tmp_path: Path
) -> None:
    folder, metrics = trained(crowd, tmp_path, "body_pose", steps=400)
    codec = registry.load(folder)
    assert isinstance(codec, VectorTokenizer)
    resting = np.tile(np.eye(3).ravel(), JOINTS)
    held_out = np.stack([each(False) for each in parts_of("body_pose", people(40, 10))])
    cosine = held_out @ resting / np.linalg.norm(held_out, axis=1) / np.linalg.norm(resting)
    assert 1 - metrics["cosine"] < 0.7 * (1 - cosine.mean()), "nearer than a body at rest"
    tokenizer = PosesTokenizer(train_vocabulary(["a picture"], 5000), 64, codec)
    label = people(1, 5)
    found = tokenizer.decode(tokenizer.encode(label, "key", image_size=(200, 200)))
    body, back = (np.array(each["pred_smpl_params"]["body_pose"][0]) for each in (label, found))
    assert np.abs(body - back).mean() < np.abs(body - np.eye(3)).mean()


def test_mirrored_parts_are_what_a_flipped_crop_shows(crowd: Dataset) -> None:
    label = next(each["sam_instance"] for each in crowd.samples(["sam_instance"], split="val"))
    (first, *_) = parts_of("sam_mask", label)
    assert np.array_equal(np.asarray(first(True)), np.asarray(first(False))[:, ::-1])
    (body, *_) = parts_of("body_pose", people(1, 0))
    assert not np.allclose(body(True), body(False))


def test_every_part_has_a_reader_and_is_known() -> None:
    for part, whole in PARTS.items():
        assert modality(part).name == part
        assert parts_of(part, {"annotations": []} if whole == "sam_instance" else {}) == []


def test_what_has_no_parts_at_all_is_told(crowd: Dataset, tmp_path: Path) -> None:
    dataset = Dataset.open(str(tmp_path / "nobody"), create=True)
    writers = {
        name: dataset.writer(modality(name), Producer(name="test", version="1"), {}, 1)
        for name in ("rgb", "human_poses")
    }
    labels = {"rgb": np.zeros((64, 64, 3), np.uint8), "human_poses": {}}
    for name, writer in writers.items():
        payloads = [encode_label(modality(name), labels[name])] * 2
        writer.commit(0, ["a", "b"], payloads=payloads)
    dataset.publish([each.finish() for each in writers.values()], "nobody")
    with pytest.raises(TrainingError, match=r"human_poses: no label .* without a body_pose"):
        train(plan_run(config_of(dataset, tmp_path / "run", "body_pose")))
    with pytest.raises(ConfigError, match="have neither mask nor name"):
        plan_run(config_of(crowd, tmp_path / "named", "body_pose", name="pose"))
    with pytest.raises(ConfigError, match="masks have no other loss"):
        train(plan_run(config_of(crowd, tmp_path / "lost", "sam_mask", losses={"l2": 1.0})))
