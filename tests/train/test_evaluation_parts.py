"""What predictions are made of and compared with: ensembles, guesses without a look, crops."""

import numpy as np
import pytest

from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import Kind, modality
from fourmill.tokenize.crops import crop_settings
from fourmill.train.evaluation.baselines import mean_predictor
from fourmill.train.evaluation.contest import Judged
from fourmill.train.evaluation.ensembles import combine
from fourmill.train.evaluation.panel import chosen
from fourmill.train.evaluation.samples import Sample, cropped
from fourmill.train.evaluation.settings import Settings

UP, LEFT = (0, 0, 1), (-1, 0, 0)


def normals(*vectors: tuple[float, float, float]) -> np.ndarray:
    return np.rint(127.5 * (np.array([vectors]) + 1)).astype(np.uint8)


def test_samples_of_depth_and_features_are_averaged():
    low, high = np.full((2, 2), 0.2, np.float32), np.full((2, 2), 0.6, np.float32)
    found = combine(Kind.DEPTH, [low, high])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.4, atol=1e-6)
    vectors = [np.array([1, 0], np.float32), np.array([0, 1], np.float32)]
    np.testing.assert_allclose(combine(Kind.VECTOR, vectors), [0.5, 0.5])


def test_a_mean_of_normals_is_a_unit_vector_again_and_unknown_where_they_cancel_out():
    down = (0, 0, -1)
    found = combine(Kind.NORMAL, [normals(UP, UP), normals(LEFT, down)])
    vectors = found / 127.5 - 1
    np.testing.assert_allclose(vectors[0, 0], [-np.sqrt(0.5), 0, np.sqrt(0.5)], atol=0.01)
    assert np.abs(vectors[0, 1]).max() < 0.01


def test_classes_are_voted_for_and_the_lowest_of_equals_wins():
    samples = [np.array([each], np.uint8) for each in ([3, 7, 1], [3, 5, 2], [4, 5, 255])]
    assert combine(Kind.CLASSES, samples).tolist() == [[3, 5, 1]]


def test_of_what_has_no_mean_the_first_sample_is_taken():
    boxes = [{"instances": []}, {"instances": [{"score": 1.0}]}]
    assert combine(Kind.BOXES, boxes) == boxes[0]


def test_of_texts_that_one_is_taken_which_agrees_most_with_the_others():
    drawn = ["A windmill: solar.", "a green fish", "a fish in the sea", "The sea fish.", "a duck"]
    assert combine(Kind.TEXT, drawn) == "a fish in the sea"
    assert combine(Kind.TEXT, ["a cat", "a dog"]) == "a cat"
    assert combine(Kind.TEXT, ["", ""]) == ""


def guess(kind: Kind, *labels: object) -> object:
    predictor = mean_predictor(kind)
    for each in labels:
        predictor.add(each)
    return predictor.predict()


def test_the_guess_of_depth_is_the_mean_of_standardised_maps_where_they_are_known():
    ramp = np.linspace(1, 2, 100, dtype=np.float32).reshape(10, 10)
    holes = 20 * ramp
    holes[0] = 0
    found = guess(Kind.DEPTH, ramp, holes)
    assert np.corrcoef(found[1:].ravel(), ramp[1:].ravel())[0, 1] == pytest.approx(1, abs=1e-3)
    assert guess(Kind.DEPTH, np.zeros((4, 4), np.float32)) is None


def test_the_guess_of_classes_is_the_most_frequent_one_at_each_place():
    rows = ([1, 2, 255], [1, 3, 255], [2, 3, 255])
    found = guess(Kind.CLASSES, *(np.array([each], np.uint8) for each in rows))
    assert found.tolist() == [[1, 3, 1]]  # where nobody knows: what is most frequent anywhere
    assert guess(Kind.CLASSES, np.full((2, 2), 255, np.uint8)) is None


def test_the_guess_of_normals_is_a_mean_direction():
    found = guess(Kind.NORMAL, normals(UP), normals(UP), normals(LEFT)) / 127.5 - 1
    np.testing.assert_allclose(found[0, 0], np.array([-1, 0, 2]) / np.sqrt(5), atol=0.01)


def test_the_guess_of_a_caption_is_the_one_that_is_said_most_often_or_most_like_the_others():
    assert guess(Kind.TEXT, "a cat", "dogs run", "dogs run") == "dogs run"
    unlike = ("a cat on a mat", "a dog on a mat", "planets", "a cat on a dog")
    assert guess(Kind.TEXT, *unlike) in ("a cat on a mat", "a dog on a mat", "a cat on a dog")
    assert guess(Kind.TEXT) is None


def test_the_guess_of_boxes_is_the_mean_box_of_each_class_by_its_frequency():
    cat = {"boxes": [0.0, 0.0, 0.4, 0.4], "class_name": "cat", "score": 1.0}
    low = {"boxes": [0.2, 0.2, 0.6, 0.6], "class_name": "cat", "score": 1.0}
    dog = {"boxes": [0.0, 0.0, 1.0, 1.0], "class_name": "dog", "score": 1.0}
    labels = [{"instances": each} for each in ([cat], [low, dog], [], [])]
    first, second = guess(Kind.BOXES, *labels)["instances"]
    assert (first["class_name"], first["score"]) == ("cat", 0.5)
    assert first["boxes"] == pytest.approx([0.1, 0.1, 0.5, 0.5])
    assert (second["class_name"], second["score"]) == ("dog", 0.25)
    assert mean_predictor(Kind.STRUCTURE) is None


def sample(height: int, width: int) -> Sample:
    image = np.zeros((height, width, 3), np.uint8)
    return Sample(0, "a", image, crop_settings("a", height, width, 1), {})


def test_depth_that_is_unknown_is_no_part_of_what_is_resampled():
    depth = np.full((64, 96), 4, np.float32)
    depth[:, 40:45] = 0
    depth[:32, 48:60] = 0
    found = cropped(modality("truth_depth"), depth, sample(64, 96), 16)
    known = found > 0
    np.testing.assert_allclose(found[known], 4, rtol=1e-5)
    assert not known[:7, 9:10].any()
    assert known[9:, 10:].all()


def test_boxes_are_those_of_the_crop_and_crowds_stay_beside():
    box = {"boxes": [0.0, 0.0, 0.5, 1.0], "class_name": "cat", "score": 1.0}
    outside = {"boxes": [0.0, 0.0, 0.2, 1.0], "class_name": "cat", "score": 1.0}
    label = {"instances": [box, outside], "crowds": [box]}
    found = cropped(modality("truth_det"), label, sample(100, 200), 32)
    assert [each["boxes"] for each in found["instances"]] == [[0.0, 0.0, 0.5, 1.0]]
    assert len(found["crowds"]) == 1
    encode_label(modality("truth_det"), found)  # still a label


@pytest.mark.parametrize(
    ("count", "titles"),
    [
        (1, ["best"]), (2, ["best", "worst"]), (3, ["best", "median", "worst"]),
        (40, ["best", "best", "median", "median", "worst", "worst"]),
    ],
)  # fmt: skip
def test_the_best_the_median_and_the_worst_are_shown_each_once(count, titles):
    ranked = [Judged(place, str(place), {}) for place in range(count)]
    found = chosen(ranked)
    assert [title for title, _ in found] == titles
    places = [each.place for _, each in found]
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0, count - 1)


def test_an_ensemble_is_drawn_and_one_sample_is_the_likeliest_unless_told_otherwise():
    grid, text, boxes = modality("tok_depth@224"), modality("caption"), modality("det")
    assert Settings().step(grid, Kind.DEPTH).temperature == 0
    assert Settings(ensemble=10).step(grid, Kind.DEPTH).temperature == 1
    assert Settings(ensemble=10).step(text, Kind.TEXT).temperature == 1
    assert Settings(ensemble=10).step(boxes, Kind.BOXES).temperature == 0, "they have no ensemble"
    chosen_by_user = Settings(ensemble=10, temperature=0.5, steps=12)
    assert chosen_by_user.step(grid, Kind.DEPTH).temperature == 0.5
    assert chosen_by_user.step(grid, Kind.DEPTH).steps == 12
    assert chosen_by_user.step(boxes, Kind.BOXES).temperature == 0.5
    assert Settings(steps=12).step(text, Kind.TEXT).steps == 1
