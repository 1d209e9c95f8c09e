"""Agreement of two experts, held against other people's implementations on random labels."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr
from skimage.morphology import dilation, footprint_rectangle
from sklearn.linear_model import LinearRegression
from sklearn.metrics import f1_score, jaccard_score
from sklearn.metrics.pairwise import cosine_similarity

from fourmill.manifests.agreement import HEADLINES, compare, over_all
from fourmill.manifests.dense_agreement import rank_correlation
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.listed_agreement import most_pairs
from fourmill.manifests.modalities import COARSE_CLASSES, Kind, Modality, modality

RNG = np.random.default_rng(3)


def _measures(name, one, other):
    return compare(modality(name), one, modality(name), other).measures


def _normals(vectors):
    return np.rint(127.5 * (vectors + 1)).astype(np.uint8)


def test_every_kind_has_a_measure_to_order_samples_by():
    assert set(HEADLINES) == set(Kind)


def test_depth_is_compared_after_scale_and_shift():
    depth = RNG.uniform(0.2, 1, (40, 50)).astype(np.float32)
    same = _measures("depth", depth, (3 * depth + 0.7).astype(np.float32))
    assert same["abs_rel"] < 1e-5
    assert (same["delta1"], round(same["rank_correlation"], 6)) == (1, 1)
    noisy = (depth + RNG.normal(0, 0.2, depth.shape)).clip(0).astype(np.float32)
    found = _measures("depth", depth, noisy)
    fit = LinearRegression().fit(noisy.reshape(-1, 1), depth.ravel())
    fitted = fit.predict(noisy.reshape(-1, 1))
    ratio = np.maximum(fitted / depth.ravel(), depth.ravel() / fitted)
    assert found["abs_rel"] == pytest.approx(np.mean(np.abs(fitted / depth.ravel() - 1)), rel=1e-4)
    assert found["delta1"] == pytest.approx(np.mean(ratio < 1.25), abs=1e-3)
    assert found["rank_correlation"] == pytest.approx(spearmanr(depth.ravel(), noisy.ravel())[0])


def test_depth_that_is_upside_down_is_seen_although_scale_and_shift_fit_it():
    depth = np.linspace(0.1, 1, 600, dtype=np.float32).reshape(20, 30)
    found = _measures("depth", depth, 1.1 - depth)
    assert found["delta1"] == 1
    assert found["rank_correlation"] == pytest.approx(-1)


def test_ranks_with_ties_are_those_of_scipy():
    one, other = RNG.integers(0, 9, (2, 300)).astype(float)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other)[0])
    assert np.isnan(rank_correlation(one, np.zeros(300)))


def test_normals_are_compared_by_their_angles_and_unknown_ones_left_out():
    vectors = RNG.normal(size=(30, 40, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    turned = Rotation.from_euler("xyz", (5, 9, -7), degrees=True).apply(vectors.reshape(-1, 3))
    one, other = _normals(vectors), _normals(turned.reshape(vectors.shape))
    one[:3] = 128
    decoded = [each[3:].reshape(-1, 3) / 127.5 - 1 for each in (one, other)]
    angles = [
        np.degrees(np.arccos(np.clip(cosine_similarity([a], [b])[0, 0], -1, 1)))
        for a, b in zip(*decoded, strict=True)
    ]
    found = _measures("normal", one, other)
    assert found["mean_degrees"] == pytest.approx(np.mean(angles))
    assert found["median_degrees"] == pytest.approx(np.median(angles))
    assert found["within_11_degrees"] == pytest.approx(np.mean(np.array(angles) < 11.25))
    assert found["within_30_degrees"] == 1


def test_edges_within_a_small_distance_are_the_same():
    one, other = ((RNG.random((2, 120, 160)) > 0.97) * 255).astype(np.uint8)
    reach = round(0.0075 * np.hypot(120, 160))
    near = footprint_rectangle((2 * reach + 1, 2 * reach + 1))
    hits = [
        (a > 0)[np.asarray(dilation(b, near)) > 0].sum() / (a > 0).sum()
        for a, b in ((one, other), (other, one))
    ]
    found = _measures("canny_edge", one, other)
    assert found["f1"] == pytest.approx(2 * hits[0] * hits[1] / sum(hits))
    assert found["correlation"] == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    line = np.zeros((100, 100), np.uint8)
    line[50] = 255
    assert _measures("canny_edge", line, np.roll(line, 1, axis=0))["f1"] == 1
    assert _measures("canny_edge", line, np.roll(line, 9, axis=0))["f1"] == 0
    assert _measures("canny_edge", 0 * line, 0 * line)["f1"] == 1


def test_classes_are_compared_by_agreement_and_mean_iou_and_unknown_places_left_out():
    one, other = RNG.integers(0, 6, (2, 30, 40)).astype(np.uint8)
    other = np.where(RNG.random(one.shape) < 0.6, one, other)
    one[0], other[1] = 255, 255
    found = compare(modality("semseg_coarse"), one, modality("semseg_coarse"), other)
    known = one[2:].ravel(), other[2:].ravel()
    assert found.measures["agreement"] == pytest.approx(np.mean(known[0] == known[1]))
    assert found.measures["mean_iou"] == pytest.approx(jaccard_score(*known, average="macro"))
    assert over_all(Kind.CLASSES, found.tallies) == found.measures


def test_classes_of_experts_that_number_them_differently_are_matched_by_name():
    before = Modality("a", Kind.CLASSES, "a", "png", classes=COARSE_CLASSES)
    after = Modality("b", Kind.CLASSES, "b", "png", classes=("sky", "cow", "wall"))
    one = np.array([[COARSE_CLASSES.index("sky"), COARSE_CLASSES.index("wall"), 3]], np.uint8)
    other = np.array([[0, 2, 1]], np.uint8)
    assert compare(before, one, after, other).measures["agreement"] == pytest.approx(2 / 3)


def _boxes(count):
    corners = np.sort(RNG.random((count, 2, 2)) * 0.6 + RNG.random((count, 1, 1)) * 0.4, axis=1)
    return {
        "instances": [
            {
                "boxes": each.ravel().tolist(),
                "class_name": str(RNG.choice(["cat", "dog"])),
                "score": 1,
            }
            for each in corners
        ]
    }


def _moved(label):
    return {
        "instances": [
            box | {"boxes": (np.array(box["boxes"]) + RNG.normal(0, 0.02, 4)).tolist()}
            for box in label["instances"]
        ]
    }


def test_boxes_are_matched_one_to_one_by_class_and_overlap():
    import torch
    from torchvision.ops import box_iou

    for _ in range(20):
        one = _boxes(int(RNG.integers(1, 12)))
        other = _moved({"instances": one["instances"] + _boxes(4)["instances"]})
        overlap = box_iou(
            *(torch.tensor([b["boxes"] for b in each["instances"]]) for each in (one, other))
        ).numpy()
        same = np.array(
            [[a["class_name"] == b["class_name"] for b in other["instances"]]
             for a in one["instances"]]
        )  # fmt: skip
        fits = same & (overlap >= 0.5)
        pairs = fits[linear_sum_assignment(-fits.astype(int))].sum()
        found = _measures("det", one, other)
        total = len(one["instances"]) + len(other["instances"])
        assert found["f1"] == pytest.approx(2 * pairs / total)
        assert found["matched_before"] == pytest.approx(pairs / len(one["instances"]))
        assert _measures("det", other, one)["f1"] == found["f1"]
    nothing = {"instances": []}
    assert _measures("det", nothing, nothing)["f1"] == 1
    assert _measures("det", nothing, _boxes(2))["f1"] == 0


def test_the_most_pairs_are_found_however_tangled_the_choices_are():
    for _ in range(200):
        fits = RNG.random(RNG.integers(1, 9, 2)) < 0.3
        assert most_pairs(fits.tolist()) == fits[linear_sum_assignment(-fits.astype(int))].sum()


def test_instances_are_matched_by_their_masks_whatever_their_numbers():
    one = np.zeros((20, 20), np.uint16)
    one[:10, :10], one[10:, 10:], one[:4, 15:] = 1, 2, 3
    other = np.zeros_like(one)
    other[:10, :9], other[10:, 10:] = 7, 1  # the first a little smaller, the third not found
    assert _measures("truth_instances", one, other)["f1"] == pytest.approx(2 * 2 / (3 + 2))


def test_words_overlap_in_any_order_and_letter_case():
    found = _measures("caption", "A cat on a mat", "a Dog on a mat")
    assert (found["exact"], found["word_overlap"]) == (0, pytest.approx(4 / 5))
    assert _measures("caption", "", "")["word_overlap"] == 1
    assert _measures("caption", "cat", "")["word_overlap"] == 0


def test_features_are_compared_by_their_cosine_at_each_place():
    one, other = RNG.normal(size=(2, 32, 6, 7)).astype(np.float32)
    table = cosine_similarity(one.reshape(32, -1).T, other.reshape(32, -1).T)
    found = _measures("vit_s_focus", one, other)
    assert found["cosine"] == pytest.approx(np.diag(table).mean(), abs=1e-6)
    flat = _measures("imagenet_features", one.ravel(), other.ravel())
    assert flat["cosine"] == pytest.approx(
        cosine_similarity(one.reshape(1, -1), other.reshape(1, -1))[0, 0], abs=1e-6
    )


def test_sequences_of_vectors_are_compared_place_by_place_and_what_is_longer_counts_as_other():
    one, other = RNG.normal(size=(5, 16)).astype(np.float16), RNG.normal(size=(3, 16))
    other = other.astype(np.float16)
    table = cosine_similarity(one[:3].astype(float), other.astype(float))
    found = _measures("t5_caption", one, other)
    assert found["cosine"] == pytest.approx(np.diag(table).sum() / 5)
    assert _measures("t5_caption", one, one)["cosine"] == pytest.approx(1)


def test_tokens_and_structures_are_compared_by_the_share_that_is_equal():
    one, other = RNG.integers(0, 3, (2, 2, 196)).astype(np.int16)
    assert _measures("tok_rgb@224", one, other)["equal_share"] == np.mean(one == other)
    found = _measures("metadata", {"a": 1, "b": [1, 2], "c": "x"}, {"a": 1, "b": [1, 3], "d": 0})
    assert found["equal_share"] == pytest.approx(2 / 5)
    assert _measures("metadata", {}, {})["equal_share"] == 1


def test_maps_of_different_size_are_brought_to_the_smaller_one():
    large = np.kron(RNG.integers(0, 5, (12, 9)), np.ones((4, 4))).astype(np.uint8)
    assert _measures("semseg_coarse", large, large[::4, ::4])["agreement"] == 1
    depth = np.kron(RNG.uniform(0.2, 1, (12, 9)), np.ones((4, 4))).astype(np.float32)
    assert _measures("depth", depth, depth[::4, ::4])["abs_rel"] < 1e-5
    edges = np.zeros((448, 448), np.uint8)
    edges[100], edges[:, 301] = 255, 255
    small = np.zeros((224, 224), np.uint8)
    small[50], small[:, 150] = 255, 255
    assert _measures("canny_edge", edges, small)["f1"] == 1


def test_what_cannot_be_compared_is_refused_in_words():
    with pytest.raises(ConfigError, match="caption is text, det is boxes"):
        compare(modality("caption"), "a", modality("det"), {"instances": []})
    with pytest.raises(ConfigError, match="4 and 5 channels"):
        _measures("vit_s_focus", np.ones((4, 2, 2), np.float16), np.ones((5, 2, 2), np.float16))
    with pytest.raises(ConfigError, match="tokens of a sample cannot be compared"):
        _measures("tok_rgb@224", np.ones(196, np.int16), np.ones(784, np.int16))


def test_agreement_of_boxes_over_all_samples_counts_boxes_rather_than_samples():
    found = over_all(Kind.BOXES, {"boxes": np.array([3, 4, 6])})
    assert found["f1"] == pytest.approx(f1_score([1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 1, 1]))
