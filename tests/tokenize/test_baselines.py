"""What a tokenizer has to beat: patch means, and k-means of patches."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from fourmill.manifests.modalities import modality
from fourmill.tokenize import registry
from fourmill.tokenize.baselines import PatchCodes, k_means, nearest_parts, patch_mean
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.evaluate import Samples, compare
from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer
from fourmill.tokenize.vectors import VectorTokenizer


@pytest.fixture(scope="module")
def crops(photographs):
    parts = [photo[:64, 20:84] for photo in photographs.values()]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2) / 127.5 - 1


def squares(one, other):
    return float((one - other).square().mean())


def test_each_patch_becomes_its_mean_or_its_most_frequent_class(crops):
    found = patch_mean(crops, 8)
    assert found.shape == crops.shape
    assert torch.allclose(found[1, 2, 8:16, 40:48], crops[1, 2, 8:16, 40:48].mean())
    ids = torch.tensor([[[1, 1, 5, 7], [2, 1, 7, 7], [3, 3, 4, 4], [3, 3, 4, 4]]])
    rows = [[1, 1, 7, 7]] * 2 + [[3, 3, 4, 4]] * 2
    assert patch_mean(ids, 2).tolist() == [rows]


def test_k_means_is_as_good_as_that_of_scikit_learn(crops):
    points = torch.nn.functional.unfold(crops, 8, stride=8).transpose(1, 2).flatten(0, 1)
    codes = k_means(points, 16, torch.Generator().manual_seed(0))
    ours = torch.cdist(points, codes).min(1).values.square().sum()
    theirs = KMeans(16, n_init=3, random_state=0).fit(points.numpy()).inertia_
    assert codes.shape == (16, 192)
    assert float(ours) < 1.1 * theirs


def test_more_codes_lose_less_and_as_many_as_patches_lose_nothing(crops):
    losses = [
        squares(PatchCodes(crops, 8, each).reconstruct(crops), crops) for each in (4, 32, 384)
    ]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(0, abs=1e-9)
    assert len(PatchCodes(crops, 8, 1000).codes_KP) == 384


def test_the_same_patches_give_the_same_codes(crops):
    one, other = (PatchCodes(crops, 8, 32) for _ in range(2))
    assert torch.equal(one.codes_KP, other.codes_KP)
    ids = one.tokenize(crops)
    assert ids.shape == (len(crops), 8, 8)
    assert torch.equal(one.lookup(ids), one.reconstruct(crops))


@pytest.mark.parametrize("num_labels", [6, 200])
def test_classes_come_back_as_classes(num_labels):
    ids = torch.arange(5).repeat_interleave(8).view(1, 1, 40).expand(2, 16, 40).clone()
    ids = torch.cat([ids, ids, ids[:, :8]], dim=1)
    codes = PatchCodes(ids, 8, 5, num_labels)
    assert torch.equal(codes.reconstruct(ids), ids)


def test_vectors_are_coded_in_as_many_parts_as_there_are_code_books():
    known = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32))
    assert torch.equal(nearest_parts(known, known, 3, 50), known)
    few = nearest_parts(known, known, 3, 4)
    assert few.shape == known.shape
    # the first part has the channel that is left over
    assert [len(few[:, at].unique(dim=0)) for at in (slice(4), slice(4, 7), slice(7, 10))] == [
        4
    ] * 3


def test_a_tokenizer_stands_beside_both_and_the_better_one_is_named(photographs, tmp_path):
    names, photos = list(photographs), list(photographs.values())
    sizes = [photo.shape[:2] for photo in photos]
    config = VQTrainConfig(dim=64, steps=10, num_crops=8, batch_size=4)
    train_tokenizer(modality("rgb"), 64, 8, 64, config, photos, sizes, names, tmp_path / "rgb")
    tokenizer = registry.load(tmp_path / "rgb")

    def samples(num_crops):
        cuts = [
            crop_settings(key, *size, num_crops) for key, size in zip(names, sizes, strict=True)
        ]
        return Samples(photos, cuts, sizes, names)

    found = compare(tokenizer, samples(1), samples(4))
    rows = {each.metric: each for each in found.metrics}
    assert list(rows) == ["psnr", "ssim", "codes_used", "perplexity"]
    assert rows["psnr"].beats["patch mean"] == (rows["psnr"].tokenizer > rows["psnr"].patch_mean)
    assert rows["psnr"].k_means > rows["psnr"].patch_mean
    assert rows["perplexity"].beats == {}
    assert set(found.reconstructions) == {"tokenizer", "k-means", "patch mean"}
    assert all(each.shape == found.inputs.shape for each in found.reconstructions.values())
    alone = compare(tokenizer, samples(1))
    assert [each.tokenizer for each in alone.metrics] == [each.tokenizer for each in found.metrics]
    assert all(each.beats == {} for each in alone.metrics)


def test_an_untrained_tokenizer_of_vectors_does_not_beat_k_means():
    torch.manual_seed(0)
    shape = {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "latent": 64, "books": 16}
    network = BottleneckAutoencoder(BottleneckConfig(channels=768, codes=32, **shape))
    tokenizer = VectorTokenizer(modality("DINOv2-B14-global"), network, "dinov2_global")
    rows = list(np.random.default_rng(0).normal(size=(60, 768)).astype(np.float32))

    def samples(labels):
        cut = np.array([[0, 0, 8, 8, 0]])
        keys = [str(index) for index in range(len(labels))]
        return Samples(labels, [cut] * len(labels), [(8, 8)] * len(labels), keys)

    found = compare(tokenizer, samples(rows[:20]), samples(rows[20:]))
    assert found.metrics[0].metric == "cosine"
    assert found.metrics[0].beats == {"k-means": False}
