"""Predicted pictures, as sets, and beside the texts that they are of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.labelers.networks_dense import clip_tokenizer
from tests.train.world import World

from fourmill.manifests.errors import ConfigError
from fourmill.train.evaluation.commands import evaluate
from fourmill.train.evaluation.networks import CLIP, INCEPTION_FILE, ClipScore, feature_network
from fourmill.train.evaluation.pictures import PictureMetric


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights are where they are put, and nowhere else."""
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(weights))
    monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FOURMILL_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return weights


def small_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder.mkdir(parents=True)
    clip_tokenizer(folder)
    side = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side)
    CLIPProcessor(images, CLIPTokenizer.from_pretrained(str(folder))).save_pretrained(folder)
    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**small, "vocab_size": 54, "bos_token_id": 52, "eos_token_id": 53},
        vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)


def test_pictures_from_a_sentence_are_scored_by_clip(no_network, world: World, tmp_path):
    small_clip(no_network / CLIP)
    out = tmp_path / "out"
    evaluate(
        str(world.run), world.root, tasks=("rgb",), inputs=("caption",), out=out, losses=False,
        training=0, device="cpu", dtype="float32",
    )  # fmt: skip
    (record,) = json.loads((out / "report.json").read_text())["tasks"]
    assert set(record["scores"]["single sample"]) == {"psnr", "ssim", "clip_score"}
    assert record["scores"]["single sample"]["clip_score"] >= 0
    assert set(record["scores"]["tokenizer bound"]) == {"psnr", "ssim"}
    (note,) = record["notes"]
    assert note.startswith("no Frechet distance: efficientnet-lite0")


def test_clip_score_is_the_cosine_of_the_networks_own_embeddings(no_network):
    from transformers import CLIPModel, CLIPProcessor

    folder = no_network / CLIP
    small_clip(folder)
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    ours, theirs = ClipScore(), []
    for seed, text in enumerate(("a cat", "a cup on a mat", "rain")):
        picture = np.random.default_rng(seed).integers(0, 256, (40, 48, 3)).astype(np.uint8)
        ours.add(picture, text)
        with torch.inference_mode():
            given = processor(text=[text], images=[Image.fromarray(picture)], return_tensors="pt")
            output = model(**given)
        theirs.append(float(torch.cosine_similarity(output.image_embeds, output.text_embeds)))
    assert ours.total() == pytest.approx(max(0, 100 * np.mean(theirs)), abs=1e-3)


def test_what_is_not_inceptions_weights_is_refused(no_network):
    (no_network / INCEPTION_FILE).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ConfigError, match="not Inception's weights"):
        feature_network()
    assert not Path("ran").exists()


@pytest.mark.packages
def test_without_inception_a_network_of_a_package_sees_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = feature_network()
    assert network.name == "efficientnet_lite0"
    same, blurred = PictureMetric(network), PictureMetric(network)
    for seed in range(8):
        picture = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        same.add(picture, picture)
        blurred.add(picture, np.full_like(picture, 128))
    (found, other) = (each.totals()["fid_efficientnet_lite0"] for each in (same, blurred))
    assert found == pytest.approx(0, abs=0.1)
    assert other > 10
