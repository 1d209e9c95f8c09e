"""Network experts for every pixel say what the libraries' own pipelines say; geometry is exact."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fourmill.labelers import registry
from fourmill.labelers.batches import in_equal_batches
from fourmill.labelers.edge_thinning import thinned
from fourmill.labelers.experts.normals_from_depth import normals_of
from fourmill.labelers.experts.sam_edges import outline
from fourmill.labelers.relative_depth import relative_depth
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.run_lengths import paint_masks, read_masks


def photo(bench) -> NDArray[Any]:
    return bench.samples(["rgb"])[1]["rgb"]


def label(bench, name: str, **inputs: Any) -> NDArray[Any]:
    (labels,) = bench.labeler(name).label([{"key": "x", **inputs}])
    (value,) = labels.values()
    return value


def folder_of(bench, name: str) -> str:
    bench.weights_of(name)
    hub = registry.spec(name).hub
    assert hub is not None
    return str(hub.folder())


def task(bench, name: str, task: str) -> Any:
    """Transformers' own pipeline on the same weights."""
    from transformers import pipeline

    folder = folder_of(bench, name)
    return pipeline(task, model=folder, image_processor=folder, device="cpu")


@pytest.mark.parametrize("name", ["dpt", "depth-anything-v2-s", "depth-pro"])
def test_depth_is_what_the_depth_pipeline_says(name: str, bench) -> None:
    rgb = photo(bench)
    theirs = task(bench, name, "depth-estimation")(Image.fromarray(rgb))["predicted_depth"]
    predicted = theirs.detach().numpy()
    assert predicted.shape == rgb.shape[:2]
    disparity = 1 / predicted if name == "depth-pro" else predicted
    ours = label(bench, name, rgb=rgb)
    assert np.abs(ours - relative_depth(disparity)).max() < 1e-3
    assert ours.std() > 0.05  # it says something


@pytest.mark.parametrize("name", ["mask2former", "segformer"])
def test_classes_are_those_of_the_processors_post_processing(name: str, bench) -> None:
    from transformers import (
        AutoImageProcessor,
        AutoModelForSemanticSegmentation,
        AutoModelForUniversalSegmentation,
    )

    rgb, folder = photo(bench), folder_of(bench, name)
    auto = AutoModelForSemanticSegmentation if name == "segformer" else (
        AutoModelForUniversalSegmentation
    )  # fmt: skip
    processor = AutoImageProcessor.from_pretrained(folder)
    model = auto.from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=Image.fromarray(rgb), return_tensors="pt"))
    (theirs,) = processor.post_process_semantic_segmentation(outputs, [rgb.shape[:2]])
    ours = label(bench, name, rgb=rgb)
    assert (ours == theirs.numpy()).mean() > 0.999
    assert len(np.unique(ours)) > 1


def test_oneformer_is_told_its_task_as_its_own_processor_does(bench) -> None:
    from transformers import (
        AutoTokenizer,
        OneFormerForUniversalSegmentation,
        OneFormerImageProcessor,
        OneFormerProcessor,
    )

    rgb, folder = photo(bench), folder_of(bench, "oneformer")
    processor = OneFormerProcessor(
        OneFormerImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    model = OneFormerForUniversalSegmentation.from_pretrained(folder).eval()
    inputs = processor(Image.fromarray(rgb), ["semantic"], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    (theirs,) = processor.post_process_semantic_segmentation(outputs, [rgb.shape[:2]])
    ours = label(bench, "oneformer", rgb=rgb)
    assert (ours == theirs.numpy()).mean() > 0.999
    assert len(np.unique(ours)) > 1


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_instances_are_the_masks_of_the_mask_generation_pipeline(name: str, bench) -> None:
    rgb = photo(bench)
    theirs = task(bench, name, "mask-generation")(Image.fromarray(rgb), points_per_crop=4)
    masks = [np.asarray(each).astype(bool) for each in theirs["masks"]]
    assert masks, "the random network gives no mask that passes: the test would say nothing"
    (ours,) = bench.labeler(name).label([{"key": "x", "rgb": rgb}])
    assert (ours["instances"] == paint_masks(masks, rgb.shape[:2])).mean() > 0.999
    whole = [each.mask() for each in read_masks(ours["sam_instance"])]
    assert np.mean(np.stack(whole) == np.stack(masks)) > 0.999


def test_marigold_is_what_its_pipeline_says(bench) -> None:
    from diffusers import MarigoldNormalsPipeline

    rgb = photo(bench)[:128, :96]
    pipeline = MarigoldNormalsPipeline.from_pretrained(folder_of(bench, "marigold-normals"))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        Image.fromarray(rgb), num_inference_steps=2, processing_resolution=64,
        generator=torch.Generator().manual_seed(0),
    ).prediction[0]  # fmt: skip
    ours = label(bench, "marigold-normals", rgb=rgb)
    assert np.abs(ours / 127.5 - 1 - theirs).max() < 0.02


def camera_rays(height: int, width: int, field_of_view: float) -> NDArray[np.float64]:
    focal = max(height, width) / 2 / np.tan(np.radians(field_of_view) / 2)
    x, y = np.arange(width) + 0.5 - width / 2, height / 2 - np.arange(height) - 0.5
    return np.stack([*np.meshgrid(x / focal, y / focal), -np.ones((height, width))], axis=-1)


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.6, 0, 0.8), (0, 0.8, 0.6), (-0.48, 0.6, 0.64)])
def test_normals_of_a_plane_are_the_planes(normal: tuple[float, float, float]) -> None:
    rays = camera_rays(60, 80, 50.0)
    distance = -5 / (rays @ np.array(normal))  # where each ray meets n · p = -5
    assert (distance > 0).all()
    assert np.abs(normals_of(distance, 50.0) - normal).max() < 1e-9


def test_normals_of_a_sphere_point_away_from_its_middle() -> None:
    rays, middle, radius = camera_rays(200, 200, 40.0), np.array([0.2, -0.1, -6.0]), 1.5
    along, length = rays @ middle, (rays**2).sum(axis=-1)
    inside = along**2 - length * (middle @ middle - radius**2)
    hit = inside > 0
    distance = np.where(hit, (along - np.sqrt(np.maximum(inside, 0))) / length, 9.0)
    truth = (rays * distance[..., None] - middle) / radius
    cosine = (normals_of(distance, 40.0) * truth).sum(axis=-1)
    well_inside = hit & (truth[..., 2] > 0.5)  # at the rim a pixel spans many directions
    degrees = np.degrees(np.arccos(np.clip(cosine[well_inside], -1, 1)))
    assert well_inside.sum() > 5000
    assert np.median(degrees) < 0.02
    assert degrees.max() < 1


def test_a_floor_seen_in_relative_depth_points_up() -> None:
    # disparity of a floor falls linearly from the bottom of a picture to the horizon
    depth = np.repeat(np.linspace(1, 0, 90)[:, None], 120, axis=1).astype(np.float32)
    (labels,) = registry.get("normals-from-depth").label([{"key": "x", "depth": depth}])
    normals = np.asarray(labels["normal"]) / 127.5 - 1  # type: ignore[index]
    assert np.abs(normals[..., 0]).max() < 0.01
    assert normals[..., 1].min() > 0.5


def test_the_smaller_of_two_masks_is_seen() -> None:
    large, small = np.zeros((2, 10, 10), bool)
    large[1:9, 1:9], small[3:5, 3:5] = True, True
    plane = paint_masks([small, large], (10, 10))
    assert plane[0, 0] == 0
    assert plane[2, 2] == 1
    assert (plane[3:5, 3:5] == 2).all()


def test_edges_of_a_disc_are_one_thin_ring() -> None:
    rows, columns = np.indices((101, 101)) - 50
    away = np.hypot(rows, columns)
    disc = 1 / (1 + np.exp((away - 30) / 1.5))
    edges = thinned(outline(disc.astype(np.float32)))
    at = away[edges > 0.2 * edges.max()]
    assert np.abs(at - 30).max() < 2
    assert len(at) < 2.2 * 2 * np.pi * 30  # about one pixel wide
    turn = np.degrees(np.arctan2(rows, columns))[edges > 0.2 * edges.max()]
    assert len(np.unique(np.round(turn / 10))) == 37  # all around


def test_batches_are_full_whatever_comes() -> None:
    seen: list[list[str]] = []

    def run(words: list[str]) -> list[str]:
        seen.append(words)
        return [word.upper() for word in words]

    words = ["a", "bb", "c", "d", "ee"]
    assert in_equal_batches(words, len, 2, run) == ["A", "BB", "C", "D", "EE"]
    assert seen == [["a", "c"], ["d", "d"], ["bb", "ee"]]


def test_a_strip_of_one_row_has_an_answer_at_its_own_size(bench) -> None:
    strip = next(each for each in bench.samples(["rgb"]) if each["key"] == "strip")["rgb"]
    assert label(bench, "depth-anything-v2-s", rgb=strip).shape == strip.shape[:2]
    (labels,) = bench.labeler("sam").label([{"key": "x", "rgb": strip}])
    assert labels["instances"].shape == strip.shape[:2]


def test_every_network_expert_has_a_builder() -> None:
    from tests.labelers.networks import BUILDERS

    hub = {name for name in registry.names() if isinstance(registry.spec(name).hub, HubWeights)}
    assert hub == set(BUILDERS)
