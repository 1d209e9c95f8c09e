"""Numbers of made scenes are what the definitions say; metadata takes them where they are."""

import numpy as np
import pytest

from fourmill.labelers import registry
from fourmill.labelers.scene_measures import geometric_complexity, occlusion_score, semantics

GREY = np.full((32, 64, 3), 128, np.uint8)
ROAD, PERSON, UNKNOWN = 100, 0, 255


def metadata(**labels: object) -> dict[str, object]:
    labeler = registry.get("metadata")
    labeler.load("cpu")
    blank = dict.fromkeys(labeler.spec.optional)
    (found,) = labeler.label([{"key": "x", "rgb": GREY} | blank | labels])
    assert isinstance(found, dict)
    assert isinstance(found["metadata"], dict)
    return found["metadata"]


def test_shares_of_classes_leave_out_what_is_unknown() -> None:
    classes = np.array([[ROAD, ROAD, PERSON, UNKNOWN], [ROAD, 119, 119, 119]], np.uint8)
    found = semantics(classes)
    assert found["walkability"] == pytest.approx(3 / 7, abs=1e-4)
    assert found["objectness"] == pytest.approx(1 / 7, abs=1e-4)
    assert found["semantic_diversity"] == 3
    assert semantics(np.full((2, 2), UNKNOWN, np.uint8))["objectness"] == 0


def test_a_plane_is_simple_and_opposite_walls_are_not() -> None:
    plane = np.full((8, 8, 3), (128, 128, 255), np.uint8)
    assert geometric_complexity(plane) == pytest.approx(0, abs=1e-3)
    walls = plane.copy()
    walls[:, :4], walls[:, 4:] = (255, 128, 128), (0, 128, 128)
    assert geometric_complexity(walls) == pytest.approx(1, abs=0.01)
    assert geometric_complexity(np.full((8, 8, 3), 127, np.uint8)) == 0  # nothing is known


def test_only_jumps_of_depth_hide_something() -> None:
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[None].repeat(50, axis=0)
    assert occlusion_score(ramp) == 0
    assert occlusion_score(np.where(ramp < 0.5, 0, 1).astype(np.float32)) == 1 / 200
    assert occlusion_score(np.zeros((4, 4), np.float32)) == 0


def test_metadata_says_of_a_scene_what_its_labels_tell_and_nothing_else() -> None:
    plane = np.full((8, 8, 3), (128, 128, 255), np.uint8)
    found = metadata(
        semseg_coco=np.full((4, 4), ROAD, np.uint8),
        normal=plane,
        depth=np.zeros((4, 4), np.float32),
        instances=np.array([[0, 7], [7, 9]], np.uint16),
        source={"aesthetic_score_laion_v2": "5.25", "watermark_score": "0.01", "url": "x"},
    )
    assert (found["walkability"], found["objectness"], found["semantic_diversity"]) == (1, 0, 1)
    assert (found["aesthetic_score"], found["watermark_score"]) == (5.25, 0.01)
    assert (found["geometric_complexity"], found["occlusion_score"]) == (0, 0)
    assert found["n_sam_instances"] == 2
    bare = metadata(source={"watermark_score": "unknown"})
    assert not {"walkability", "occlusion_score", "watermark_score"} & set(bare)
