"""Each metric is what an independent library says, and perfect for equal inputs."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import accuracy_score, jaccard_score

from fourmill.manifests.dense_agreement import edges
from fourmill.manifests.modalities import Kind
from fourmill.tokenize.metrics import (
    aligned_depth,
    better_than,
    code_use,
    degrees,
    is_error,
    measure,
    psnr,
    ssim,
)
from fourmill.tokenize.perception import Perception, frechet, perceived

SIDE = 32


def noisy(values, deviation, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = deviation * torch.randn(values.shape, generator=generator)
    return (values + noise).clamp(-1, 1)


@pytest.fixture(scope="module")
def pictures(photographs):
    crops = [photo[60 : 60 + SIDE, 80 : 80 + SIDE] for photo in photographs.values()]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope="module")
def strokes():
    values = torch.full((2, 1, SIDE, SIDE), -1.0)
    values[:, :, 8:10, 4:28] = 1
    values[1, :, 4:28, 20:22] = 1
    return values


@pytest.fixture(scope="module")
def vectors():
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(2, 3, SIDE, SIDE, generator=generator), dim=1)


@pytest.fixture(scope="module")
def classes():
    generator = torch.Generator().manual_seed(2)
    truth = torch.randint(0, 6, (3, SIDE, SIDE), generator=generator)
    others = torch.randint(1, 8, truth.shape, generator=generator)
    is_kept = torch.rand(truth.shape, generator=generator) < 0.7
    return torch.where(is_kept, truth, others), truth


def unit(values):
    return ((values + 1) / 2).permute(0, 2, 3, 1).numpy().astype(np.float64)


def test_psnr_and_ssim_are_those_of_scikit_image(pictures):
    decoded = noisy(pictures, 0.2)
    pairs = list(zip(unit(pictures), unit(decoded), strict=True))
    expected = np.mean([peak_signal_noise_ratio(*pair, data_range=1) for pair in pairs])
    assert psnr(decoded, pictures) == pytest.approx(expected, abs=1e-4)
    similar = [
        structural_similarity(
            *pair, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in pairs
    ]  # fmt: skip
    assert ssim(decoded, pictures) == pytest.approx(np.mean(similar), abs=1e-4)


def test_crops_of_less_than_a_window_have_no_ssim(pictures):
    assert math.isnan(ssim(pictures[..., :8, :8], pictures[..., :8, :8]))


def test_accuracy_and_mean_iou_are_those_of_scikit_learn(classes):
    decoded, truth = classes
    found = measure(Kind.CLASSES, decoded, truth)
    is_known = truth > 0
    ours, theirs = decoded[is_known].numpy(), truth[is_known].numpy()
    assert found["accuracy"] == pytest.approx(accuracy_score(theirs, ours))
    labels = np.unique(theirs)
    expected = jaccard_score(theirs, ours, labels=labels, average="macro")
    assert found["mean_iou"] == pytest.approx(expected)


def test_degrees_are_those_of_numpy_where_the_normal_is_known(vectors):
    truth = vectors.clone()
    truth[:, :, :4] = 0
    decoded = noisy(vectors, 0.3)
    one, other = (each[:, :, 4:].double().numpy() for each in (truth, decoded))
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    expected = np.degrees(np.arccos(cosines.clip(-1, 1)))
    found = measure(Kind.NORMAL, decoded, truth)
    assert found["mean_degrees"] == pytest.approx(expected.mean(), abs=0.01)
    # torch gives the lower of two middle values
    median = np.sort(expected.ravel())[(expected.size - 1) // 2]
    assert found["median_degrees"] == pytest.approx(median, abs=0.01)
    for name, most in (("11", 11.25), ("22", 22.5), ("30", 30)):
        share = (expected < most).mean()
        assert found[f"within_{name}_degrees"] == pytest.approx(share, abs=0.002)
    assert 0.1 < found["within_11_degrees"] < found["within_30_degrees"] < 1


def test_a_vector_that_was_not_decoded_is_off_by_a_right_angle(vectors):
    assert degrees(torch.zeros_like(vectors), vectors).unique().tolist() == [90]


def test_depth_is_measured_after_the_scale_and_shift_that_fit_it_best():
    random = np.random.default_rng(0)
    depth = random.uniform(1, 9, (2, SIDE, SIDE)).astype(np.float32)
    decoded = (depth - 4) / 3 + random.normal(0, 0.5, depth.shape).astype(np.float32)
    found = aligned_depth(torch.from_numpy(decoded)[:, None], list(depth))
    expected = {"delta1": [], "abs_rel": []}
    for truth, each in zip(depth, decoded, strict=True):
        slope, shift = np.polyfit(each.ravel(), truth.ravel(), 1)
        fitted = slope * each + shift
        ratio = np.maximum(fitted / truth, truth / fitted)
        expected["delta1"].append(((ratio > 0) & (ratio < 1.25)).mean())
        expected["abs_rel"].append((np.abs(fitted - truth) / truth).mean())
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), abs=1e-4)


def test_grey_edges_count_at_the_strength_that_suits_all_crops_best(strokes):
    grey = torch.where(strokes > 0, -0.3, -1.0)
    found = measure(Kind.EDGE, grey, strokes)
    assert found["f1"] == 0
    assert found["best_f1"] == 1


def test_the_f1_of_edges_is_that_of_the_labels(strokes):
    decoded = strokes.roll(3, dims=2)
    decoded[0] = strokes[0]
    pairs = zip(*(np.uint8(255 * unit(each))[..., 0] for each in (strokes, decoded)), strict=True)
    expected = np.mean([edges(*pair)["f1"] for pair in pairs])
    assert measure(Kind.EDGE, decoded, strokes)["f1"] == pytest.approx(expected)
    assert 0.5 < expected < 1


@pytest.mark.parametrize("kind", [Kind.FEATURE_MAP, Kind.VECTOR])
def test_cosine_is_that_of_numpy(kind):
    random = np.random.default_rng(0)
    shape = (3, 16, 4, 4) if kind is Kind.FEATURE_MAP else (3, 16)
    one, other = random.normal(size=shape), random.normal(size=shape)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    expected = ((one * other).sum(1) / lengths).mean()
    found = measure(kind, torch.from_numpy(one), torch.from_numpy(other))
    assert found["cosine"] == pytest.approx(expected)


def test_perplexity_is_the_number_of_codes_if_all_are_used_alike():
    tokens = torch.arange(8).repeat(5).view(2, 20)
    assert code_use(tokens, 8) == {"codes_used": 1, "perplexity": pytest.approx(8)}
    assert code_use(tokens, 32)["codes_used"] == 0.25
    assert code_use(torch.zeros(9, dtype=torch.int64), 8)["perplexity"] == pytest.approx(1)


def test_equal_inputs_are_perfect(pictures, strokes, vectors, classes):
    assert measure(Kind.IMAGE, pictures, pictures) == {"psnr": 100, "ssim": pytest.approx(1)}
    assert measure(Kind.EDGE, strokes, strokes) == {"psnr": 100, "f1": 1, "best_f1": 1}
    assert measure(Kind.CLASSES, classes[1], classes[1]) == {"accuracy": 1, "mean_iou": 1}
    assert measure(Kind.DEPTH, strokes, strokes) == {"abs_error": 0}
    found = measure(Kind.NORMAL, vectors, vectors)
    # the cosine of equal vectors of float32 is up to a millionth less than one
    assert found["mean_degrees"] == pytest.approx(0, abs=0.1)
    assert [found[f"within_{each}_degrees"] for each in (11, 22, 30)] == [1, 1, 1]
    depth = [np.random.default_rng(0).uniform(1, 2, (8, 8)).astype(np.float32)]
    found = aligned_depth(torch.from_numpy(depth[0])[None, None], depth)
    assert found == {"delta1": 1, "abs_rel": pytest.approx(0, abs=1e-6)}


def test_what_nothing_is_known_of_is_nan():
    unknown = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    assert all(math.isnan(each) for each in measure(Kind.CLASSES, unknown + 1, unknown).values())
    nothing = torch.zeros(1, 3, SIDE, SIDE)
    assert all(math.isnan(each) for each in measure(Kind.NORMAL, nothing + 1, nothing).values())


def test_less_of_an_error_is_better_and_more_of_all_else():
    for name in ("abs_error", "abs_rel", "mean_degrees", "lpips_any", "rfid_any"):
        assert is_error(name)
        assert better_than(name, 1.0, 2.0)
    for name in ("psnr", "ssim", "f1", "delta1", "within_11_degrees", "mean_iou", "cosine"):
        assert better_than(name, 2.0, 1.0)
        assert not better_than(name, 1.0, 1.0)


def test_the_frechet_distance_is_that_of_scipys_root_of_matrices():
    random = np.random.default_rng(0)
    mix = random.normal(size=(6, 6))
    one = random.normal(size=(40, 6)) @ mix
    other = random.normal(size=(30, 6)) + 0.5
    root = sqrtm(np.cov(one.T) @ np.cov(other.T)).real
    apart = np.square(one.mean(0) - other.mean(0)).sum()
    expected = apart + np.trace(np.cov(one.T) + np.cov(other.T) - 2 * root)
    found = frechet(torch.from_numpy(one), torch.from_numpy(other))
    assert found == pytest.approx(expected, rel=1e-6)
    assert frechet(torch.from_numpy(one), torch.from_numpy(one)) == pytest.approx(0, abs=1e-6)


def by_colour(pictures):
    """The simplest view of pictures: colours of small and of large cells."""
    pool = torch.nn.functional.avg_pool2d
    return [pictures, pool(pictures, 8)], pool(pictures, 16).flatten(1)


def test_what_is_further_away_is_seen_as_further_away(pictures):
    many = torch.cat([pictures, pictures.flip(3)])
    others = {"equal": many, "near": noisy(many, 0.1), "far": noisy(many, 0.8)}
    found = perceived(Perception("colour", by_colour), many, others)
    for metric in ("lpips_colour", "rfid_colour"):
        values = [found[each][metric] for each in ("equal", "near", "far")]
        assert values == sorted(values)
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values[1] < values[2] / 2
    few = perceived(Perception("colour", by_colour), many[:7], {"equal": many[:7]})
    assert list(few["equal"]) == ["lpips_colour"]
