"""Metrics agree with independent libraries, on random inputs and on cases worked out by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_percentage_error,
    root_mean_squared_error,
)
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.neighbors import KNeighborsClassifier

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Modality
from fourmill.train.evaluation.boxes import BoxMetric
from fourmill.train.evaluation.captions import CaptionMetric, references_of, words_of
from fourmill.train.evaluation.classes import ClassMetric
from fourmill.train.evaluation.depth import DepthMetric
from fourmill.train.evaluation.knn import knn_accuracy, knn_votes
from fourmill.train.evaluation.normals import NormalMetric
from fourmill.train.evaluation.pictures import FeatureNetwork, PictureMetric, Remembering


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- depth -------------------------------------------------------------------------------------


def depth_pairs(count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Metric depth with holes, and predictions of another scale and shift, with errors."""
    draw = random()
    pairs = []
    for _ in range(count):
        truth = draw.uniform(1, 20, (24, 24)).astype(np.float32)
        noise = draw.normal(0, 0.1, truth.shape)
        predicted = (0.03 * truth + 0.2 + 0.3 * noise).astype(np.float32)
        truth[draw.random(truth.shape) < 0.3] = 0  # no measurement
        pairs.append((truth, predicted))
    return pairs


@pytest.mark.parametrize("alignment", ["scale_and_shift", "scale", "none"])
def test_depth_errors_are_those_of_a_regression_by_scikit_learn(alignment):
    metric = DepthMetric((alignment,))
    expected: dict[str, list[float]] = {"abs_rel": [], "rmse": [], "delta1": [], "delta3": []}
    for truth, predicted in depth_pairs():
        metric.add(truth, predicted)
        y, x = truth[truth > 0].astype(np.float64), predicted[truth > 0].astype(np.float64)
        fitted = x
        if alignment != "none":
            has_shift = alignment == "scale_and_shift"
            model = LinearRegression(fit_intercept=has_shift).fit(x[:, None], y)
            fitted = model.predict(x[:, None])
        expected["abs_rel"].append(mean_absolute_percentage_error(y, fitted))
        expected["rmse"].append(root_mean_squared_error(y, fitted))
        ratio = np.where(fitted > 0, np.maximum(fitted / y, y / np.maximum(fitted, 1e-30)), np.inf)
        expected["delta1"].append(np.mean(ratio < 1.25))
        expected["delta3"].append(np.mean(ratio < 1.25**3))
    found = metric.totals()
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), rel=1e-6), name


def test_several_alignments_stand_side_by_side_and_less_freedom_is_never_nearer():
    metric = DepthMetric(("scale_and_shift", "scale", "none"))
    for pair in depth_pairs():
        metric.add(*pair)
    found = metric.totals()
    assert found["rmse"] < found["rmse/scale"] < found["rmse/none"]
    assert next(iter(found)) == "abs_rel"


def test_depth_that_was_not_measured_does_not_count():
    (truth, predicted), *_ = depth_pairs()
    changed = np.where(truth > 0, predicted, 99).astype(np.float32)
    assert DepthMetric().add(truth, predicted) == DepthMetric().add(truth, changed)
    unknown = DepthMetric()
    scores = unknown.add(np.zeros((8, 8), np.float32), predicted[:8, :8])
    assert all(math.isnan(each) for each in scores.values())
    unknown.add(truth, predicted)
    assert unknown.totals() == pytest.approx(dict(DepthMetric().add(truth, predicted)))


def test_l1_of_standardised_depth_knows_no_scale_and_no_shift():
    (truth, _), *_ = depth_pairs()
    scores = DepthMetric().add(truth, (0.1 * truth + 0.3).astype(np.float32))
    assert scores["l1"] == pytest.approx(0, abs=1e-5)
    turned = DepthMetric().add(truth, (1 - 0.01 * truth).astype(np.float32))
    assert turned["l1"] > 1


# -- normals -----------------------------------------------------------------------------------


def stored_normals(vectors: np.ndarray) -> np.ndarray:
    return np.rint(127.5 * (vectors + 1)).astype(np.uint8)


def unit_vectors(draw: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = draw.normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_angles_of_normals_are_those_of_scikit_learns_cosines():
    draw, metric, every = random(), NormalMetric(), []
    for _ in range(3):
        truth = unit_vectors(draw, 20, 20)
        near = truth + draw.normal(0, 0.3, truth.shape)
        near /= np.linalg.norm(near, axis=-1, keepdims=True)
        pair = [stored_normals(each) for each in (truth, near)]
        metric.add(*pair)
        flat = [each.reshape(-1, 3) / 127.5 - 1 for each in pair]
        every.append(np.degrees(np.arccos(1 - paired_cosine_distances(*flat))))
    degrees = np.concatenate(every)
    found = metric.totals()
    assert found["mean_degrees"] == pytest.approx(degrees.mean())
    assert found["median_degrees"] == pytest.approx(np.median(degrees), abs=0.02)
    for name, most in (("within_11_degrees", 11.25), ("within_22_degrees", 22.5)):
        assert found[name] == pytest.approx((degrees < most).mean())


def test_normals_that_are_unknown_do_not_count_and_missing_predictions_are_right_angles():
    truth = stored_normals(unit_vectors(random(), 6, 6))
    truth[:2] = 128  # no vector
    predicted = truth.copy()
    predicted[2] = 128
    found = NormalMetric().add(truth, predicted)
    assert found["mean_degrees"] == pytest.approx(90 / 4, abs=0.01)
    assert math.isnan(NormalMetric().totals()["mean_degrees"])


# -- classes -----------------------------------------------------------------------------------


def classes(*names: str, name: str = "semseg") -> Modality:
    return Modality(name, Kind.CLASSES, name, "png", channels=len(names), classes=names)


FIVE = classes("sky", "wall", "cat", "dog", "tree")


def test_mean_iou_is_that_of_torchmetrics_over_all_pictures_together():
    from torchmetrics.classification import MulticlassJaccardIndex

    draw, metric = random(), ClassMetric(FIVE, FIVE)
    theirs = MulticlassJaccardIndex(5, average="macro", ignore_index=255)
    truths, guesses = [], []
    for _ in range(4):
        truth = draw.integers(0, 5, (16, 16)).astype(np.uint8)
        guess = np.where(draw.random(truth.shape) < 0.6, truth, draw.integers(0, 5, truth.shape))
        truth[draw.random(truth.shape) < 0.1] = 255
        metric.add(truth, guess.astype(np.uint8))
        theirs.update(torch.from_numpy(guess), torch.from_numpy(truth).long())
        truths.append(truth[truth != 255])
        guesses.append(guess[truth != 255])
    found = metric.totals()
    assert found["mean_iou"] == pytest.approx(float(theirs.compute()), abs=1e-6)
    accuracy = accuracy_score(np.concatenate(truths), np.concatenate(guesses))
    assert found["pixel_accuracy"] == pytest.approx(accuracy)
    assert set(metric.details()["iou_by_class"]) == set(FIVE.classes)


def test_an_unknown_prediction_is_wrong_and_no_class_of_its_own():
    truth = np.zeros((2, 2), np.uint8)
    predicted = np.array([[0, 0], [0, 255]], np.uint8)
    assert ClassMetric(FIVE, FIVE).add(truth, predicted) == {
        "mean_iou": 0.75, "pixel_accuracy": 0.75,
    }  # fmt: skip


def test_ignored_classes_of_the_truth_do_not_count():
    truth = np.array([[0, 0, 1, 2]], np.uint8)
    predicted = np.array([[0, 0, 2, 2]], np.uint8)
    found = ClassMetric(FIVE, FIVE, ["wall"]).add(truth, predicted)
    assert found == {"mean_iou": 1.0, "pixel_accuracy": 1.0}
    with pytest.raises(UnknownNameError, match="did you mean 'wall'"):
        ClassMetric(FIVE, FIVE, ["walls"])


def test_a_guess_of_an_ignored_class_is_a_miss_of_another_and_no_class_of_its_own():
    truth = np.array([[1, 1, 2, 2]], np.uint8)
    predicted = np.array([[1, 0, 2, 2]], np.uint8)
    metric = ClassMetric(FIVE, FIVE, [FIVE.classes[0]])
    assert metric.add(truth, predicted) == {"mean_iou": 0.75, "pixel_accuracy": 0.75}
    assert set(metric.details()["iou_by_class"]) == set(FIVE.classes[1:3])


def test_classes_are_the_same_by_name_whatever_their_numbers():
    turned = classes("tree", "dog", "cat", "wall", "sky", name="other")
    truth = np.array([[0, 1, 2, 3, 4]], np.uint8)
    assert ClassMetric(FIVE, turned).add(truth, 4 - truth)["mean_iou"] == 1


def test_a_truth_of_other_classes_is_refused_and_says_which():
    with pytest.raises(ConfigError, match=r"semseg has 2 classes that few cannot be.*dog, tree"):
        ClassMetric(FIVE, classes("sky", "wall", "cat", name="few"))
    ClassMetric(FIVE, classes("sky", "wall", "cat", name="few"), ["dog", "tree"])
    own = Modality("semseg_coco", Kind.CLASSES, "semseg_coco", "png", channels=6)
    truth = classes("sky", "wall", "cat", "dog", "tree", name="truth_semseg_coco")
    # a sixth class, that the truth has no number for, is a wrong answer and no class that occurs
    guess = np.array([[0, 1, 2, 3, 5]], np.uint8)
    found = ClassMetric(truth, own).add(np.array([[0, 1, 2, 3, 4]], np.uint8), guess)
    assert found["mean_iou"] == pytest.approx(4 / 5)
    nameless = Modality("ids", Kind.CLASSES, "ids", "png", channels=7)
    with pytest.raises(ConfigError, match="no names to tell"):
        ClassMetric(nameless, FIVE)


# -- boxes -------------------------------------------------------------------------------------


def boxes(*found: tuple[str, float, tuple[float, float, float, float]]) -> dict:
    return {"instances": [{"class_name": n, "score": s, "boxes": list(b)} for n, s, b in found]}


LEFT, RIGHT, LOW = (0.0, 0.0, 0.4, 0.5), (0.5, 0.0, 1.0, 0.5), (0.1, 0.6, 0.9, 0.9)


def test_average_precision_of_cases_worked_out_by_hand():
    truth = boxes(("cat", 1, LEFT), ("Cat", 1, RIGHT))
    perfect = BoxMetric(224)
    perfect.add(truth, boxes(("cat", 0.9, LEFT), ("cat", 0.8, RIGHT)))
    assert perfect.totals()["ap"] == pytest.approx(1)
    # one of two is found, before or after something that is not there: 51 of 101 recalls
    for score, precision in ((0.1, 1.0), (0.95, 0.5)):
        half = BoxMetric(224)
        half.add(truth, boxes(("cat", 0.9, LEFT), ("cat", score, LOW)))
        found = half.totals()
        assert found["ap50"] == pytest.approx(precision * 51 / 101)
        assert found["ar_100"] == pytest.approx(0.5)
        assert found["f1"] == pytest.approx(0.5)
    nothing = BoxMetric(224)
    nothing.add(truth, boxes())
    assert nothing.totals()["ap"] == 0
    assert math.isnan(BoxMetric(224).totals()["ap"])


def test_what_is_found_within_a_crowd_is_neither_right_nor_wrong():
    for truth in (boxes(("cat", 1, LEFT)), boxes(("cat", 1, LEFT)) | {"crowds": []}):
        metric = BoxMetric(224)
        metric.add(truth, boxes(("cat", 0.5, LEFT), ("cat", 0.9, LOW)))
        assert metric.totals()["ap50"] == pytest.approx(0.5)
    metric = BoxMetric(224)
    crowd = boxes(("cat", 1, (0.0, 0.5, 1.0, 1.0)))["instances"]
    metric.add(
        boxes(("cat", 1, LEFT)) | {"crowds": crowd}, boxes(("cat", 0.5, LEFT), ("cat", 0.9, LOW))
    )
    assert metric.totals()["ap50"] == pytest.approx(1)


def test_average_precision_is_that_of_torchmetrics():
    from torchmetrics.detection import MeanAveragePrecision

    draw, ours = random(), BoxMetric(300)
    theirs = MeanAveragePrecision(backend="pycocotools")
    names = ("cat", "dog")
    for _ in range(12):
        sides: list[dict] = []
        tensors = []
        corner = draw.uniform(0, 0.6, (5, 2))
        base = np.concatenate([corner, corner + draw.uniform(0.05, 0.4, (5, 2))], 1)
        for spread in (0.0, 0.02):
            values = np.clip(base + draw.normal(0, spread, base.shape), 0, 1)
            labels, scores = draw.integers(0, 2, 5) if spread else [0, 0, 1, 1, 0], draw.random(5)
            rows = zip(labels, scores, values, strict=True)
            sides.append(boxes(*((names[n], float(s), tuple(b.tolist())) for n, s, b in rows)))
            tensors.append({
                "boxes": torch.from_numpy(300 * values).float(),
                "labels": torch.tensor([int(each) for each in labels]),
                "scores": torch.from_numpy(scores).float(),
            })  # fmt: skip
        ours.add(*sides)
        theirs.update([tensors[1]], [tensors[0]])
    found, wanted = ours.totals(), theirs.compute()
    for name, other in (("ap", "map"), ("ap50", "map_50"), ("ap75", "map_75"), ("ar_10", "mar_10")):
        assert found[name] == pytest.approx(float(wanted[other]), abs=1e-4), name


# -- captions ----------------------------------------------------------------------------------

REFERENCES = [
    ["a cat sits on a red mat", "the cat is sitting on a mat"],
    ["two dogs run over the grass", "dogs are running in a field of grass"],
    ["a bowl of fruit on the table", "some apples lie in a bowl"],
    ["a man rides a horse on the beach", "a rider and his horse at the sea"],
]
CANDIDATES = [
    "a cat sits on the mat", "two dogs in the grass are running", "a bowl of apples on a table",
    "a man on a horse rides at the beach by the sea",
]  # fmt: skip


def judged_captions() -> dict[str, float]:
    metric = CaptionMetric()
    for references, candidate in zip(REFERENCES, CANDIDATES, strict=True):
        metric.add({"captions": references}, candidate)
    assert metric.totals() == metric.totals()  # it may be asked again
    return dict(metric.totals())


def test_bleu_is_that_of_sacrebleu():
    from sacrebleu.metrics import BLEU

    found = judged_captions()
    for most in (1, 2, 3, 4):
        theirs = BLEU(tokenize="none", smooth_method="none", max_ngram_order=most)
        score = theirs.corpus_score(
            CANDIDATES, [list(each) for each in zip(*REFERENCES, strict=True)]
        ).score
        assert found[f"bleu{most}"] == pytest.approx(score / 100, abs=1e-6)


def test_cider_is_that_of_scikit_learns_counts():
    expected = np.zeros(len(CANDIDATES))
    everything = [text for each in REFERENCES for text in each] + CANDIDATES
    for gram in (1, 2, 3, 4):
        counter = CountVectorizer(
            ngram_range=(gram, gram), token_pattern=r"\S+", lowercase=False
        ).fit(everything)
        seen = np.array([
            (counter.transform(each).toarray().sum(0) > 0) for each in REFERENCES
        ]).sum(0)  # fmt: skip
        idf = np.log(len(REFERENCES)) - np.log(np.maximum(seen, 1))
        for row, (references, candidate) in enumerate(zip(REFERENCES, CANDIDATES, strict=True)):
            ours = counter.transform([candidate]).toarray()[0] * idf
            for reference in references:
                theirs = counter.transform([reference]).toarray()[0] * idf
                lengths = np.linalg.norm(ours) * np.linalg.norm(theirs)
                longer = len(candidate.split()) - len(reference.split())
                near = (np.minimum(ours, theirs) * theirs).sum() / (lengths or 1)
                expected[row] += near * np.exp(-(longer**2) / 72) / 4 / len(references)
    assert judged_captions()["cider"] == pytest.approx(10 * expected.mean())


def test_captions_are_compared_without_case_and_punctuation_and_with_the_nearest_reference():
    metric = CaptionMetric()
    assert metric.add(["nothing alike", "A cat, on a mat."], "a CAT on a mat!")["word_overlap"] == 1
    assert words_of("It's 3.5 km – café_bar") == ["it's", "3.5", "km", "café", "bar"]
    assert references_of({"captions": ["", "A cat.", " … "]}) == ["A cat."]
    assert references_of({"captions": []}) == []
    with pytest.raises(ConfigError, match="expected a caption, a list of captions"):
        metric.add({"text": 3}, "a cat")


# -- features ----------------------------------------------------------------------------------


def test_nearest_neighbours_vote_as_in_scikit_learn():
    draw = random()
    centres = draw.normal(size=(6, 16))
    labels, asked_labels = draw.integers(0, 6, 300), draw.integers(0, 6, 100)
    known = (centres[labels] + draw.normal(0, 1.2, (300, 16))).astype(np.float32)
    asked = (centres[asked_labels] + draw.normal(0, 1.2, (100, 16))).astype(np.float32)
    theirs = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / 0.07)
    ).fit(known, labels)
    votes = knn_votes(known, labels, asked, 6)
    shares = (votes / votes.sum(1, keepdim=True)).numpy()
    np.testing.assert_allclose(shares, theirs.predict_proba(asked), atol=1e-4)
    names, asked_names = [f"c{each}" for each in labels], [f"c{each}" for each in asked_labels]
    found = knn_accuracy(known, names, asked, asked_names)
    assert found["knn_top1"] == pytest.approx(theirs.score(asked, asked_labels))
    assert found["knn_top1"] < found["knn_top5"] <= 1


def test_a_class_that_no_neighbour_has_is_not_guessed():
    one = np.eye(3, dtype=np.float32)
    found = knn_accuracy(one[:2], ["cat", "dog"], one[:1], ["owl"], neighbours=2)
    assert found == {"knn_top1": 0.0, "knn_top5": 0.0}


# -- pictures ----------------------------------------------------------------------------------


class Means(torch.nn.Module):
    """Six numbers of a picture."""

    num_features = 6

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        halves = pictures.float().unflatten(3, (2, -1)).mean((2, 4))
        return halves.flatten(1)


def picture_pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = random()
    pairs = []
    for _ in range(count):
        truth = draw.integers(0, 256, (24, 24, 3)) * draw.uniform(0.3, 1)
        near = truth + draw.normal(0, 12, truth.shape)
        pairs.append(tuple(np.clip(e, 0, 255).round().astype(np.uint8) for e in (truth, near)))
    return pairs


def test_pictures_are_compared_as_by_scikit_image():
    metric, expected = PictureMetric(), []
    for truth, near in picture_pairs(3):
        metric.add(truth, near)
        ssim = structural_similarity(
            truth, near, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        expected.append((peak_signal_noise_ratio(truth, near), ssim))
    psnr, ssim = np.mean(expected, axis=0)
    assert metric.totals() == pytest.approx({"psnr": psnr, "ssim": ssim}, rel=1e-4)


def test_the_frechet_distance_is_that_of_scipys_root_of_a_matrix():
    metric = PictureMetric(FeatureNetwork("means", Means()))
    features: list[list[np.ndarray]] = [[], []]
    for pair in picture_pairs(40):
        metric.add(*pair)
        for side, each in zip(features, pair, strict=True):
            picture = torch.from_numpy(each).permute(2, 0, 1)[None]
            side.append(Means()(picture)[0].double().numpy())
    ours, theirs = (np.stack(each) for each in features)
    covariances = [np.cov(each, rowvar=False) for each in (ours, theirs)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    apart = np.square(ours.mean(0) - theirs.mean(0)).sum()
    expected = apart + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert metric.totals()["fid_means"] == pytest.approx(expected, rel=1e-3)


def test_a_truth_is_looked_at_once_for_all_that_it_is_compared_with():
    passes = []

    class Counted(Means):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            passes.append(len(pictures))
            return super().forward(pictures)

    network = FeatureNetwork("means", Remembering(Counted()))
    alone = [PictureMetric(FeatureNetwork("means", Means())) for _ in range(3)]
    together = [PictureMetric(network) for _ in range(3)]
    pairs = picture_pairs(12)
    for truth, near in pairs:
        for columns in (alone, together):
            guesses = (near, 255 - near, pairs[0][1])  # the model, another one, one guess for all
            for column, guess in zip(columns, guesses, strict=True):
                column.add(truth, guess)
    assert len(passes) == 3 * 12
    assert [each.totals() for each in together] == [each.totals() for each in alone]


def test_a_handful_of_pictures_has_no_distance_between_sets():
    metric = PictureMetric(FeatureNetwork("means", Means()))
    for pair in picture_pairs(3):
        metric.add(*pair)
    assert math.isnan(metric.totals()["fid_means"])
