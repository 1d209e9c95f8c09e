"""Training of the heads: losses and errors that mean what they say, and runs that go on."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fourmill.labelers.heads import Heads, HeadsConfig, load_heads, save_heads
from fourmill.labelers.training import losses
from fourmill.labelers.training.metrics import Guess, Truth, errors
from fourmill.labelers.training.statistics import RowStatistics
from fourmill.labelers.training.views import make_view
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import COARSE_CLASSES


def scene(seed: int = 0) -> Truth:
    """A slope with a box on it, without sky."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(9, 1, 128, dtype=np.float32)[:, None] * np.ones((1, 128), np.float32)
    normals = np.full((128, 128, 3), (127, 255, 127), np.uint8)
    classes = np.full((128, 128), COARSE_CLASSES.index("floor"), np.uint8)
    top, left = rng.integers(20, 80, 2)
    box = slice(top, top + 30), slice(left, left + 30)
    depth[box], normals[box] = 1.5, (127, 127, 255)
    classes[box] = COARSE_CLASSES.index("storage")
    return Truth(depth, normals, classes)


def perfect(truth: Truth) -> Guess:
    normals = truth.normals.astype(np.float32) / 127.5 - 1
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return Guess(-3 + 7 / truth.depth, normals, truth.classes.copy())


def test_a_perfect_guess_has_no_errors_whatever_its_scale_and_shift() -> None:
    found = errors([(perfect(truth), truth) for truth in map(scene, range(3))])
    assert found.images == 3
    assert found.abs_rel < 1e-4
    assert found.delta1 == found.normal_within_30 == found.mean_iou == 1
    assert found.normal_mean_degrees < 0.1


def test_normals_that_are_ten_degrees_off_are_found_to_be() -> None:
    truth = scene()
    tilt = np.radians(10)
    turned = perfect(truth).normals @ np.array(
        [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]], np.float32
    )
    floor = truth.normals[..., 1] == 255
    truth.normals[~floor] = 128  # unknown
    found = errors([(Guess(perfect(truth).disparity, turned, truth.classes), truth)])
    assert found.normal_median_degrees == pytest.approx(10, abs=0.1)


def test_the_sky_counts_for_classes_alone() -> None:
    truth = scene()
    sky = slice(0, 40)
    truth.depth[sky], truth.classes[sky] = 32, COARSE_CLASSES.index("sky")
    guess = perfect(truth)
    guess.disparity[sky], guess.normals[sky], guess.classes[sky] = 100, (1, 0, 0), 0
    found = errors([(guess, truth)])
    assert found.abs_rel < 1e-4
    assert found.normal_within_30 == 1
    assert found.mean_iou < 0.8


def test_what_is_usual_at_a_height_beats_a_constant() -> None:
    scenes = [scene(seed) for seed in range(4)]
    usual = RowStatistics(scenes)
    by_height = errors([(usual.by_height(), truth) for truth in scenes])
    constant = errors([(usual.constant(), truth) for truth in scenes])
    assert by_height.abs_rel < constant.abs_rel / 2


def test_the_depth_loss_sees_of_scale_and_shift_the_plain_error_alone_and_of_order_more() -> None:
    depth = torch.from_numpy(scene().depth)[None]
    disparity = 1 / depth

    def beyond_plain(guess: torch.Tensor) -> torch.Tensor:
        return losses.disparity_loss(guess, depth) - 0.5 * (guess - disparity).abs().mean()

    assert losses.disparity_loss(disparity, depth) < 1e-5
    assert abs(beyond_plain(5 * disparity - 2)) < 1e-5
    assert beyond_plain(-5 * disparity) > 0.5


def test_unknown_pixels_count_for_nothing_and_spoil_no_gradient():
    truth = scene()
    depth = torch.from_numpy(np.stack([truth.depth, np.zeros_like(truth.depth)]))
    depth[0, :50] = 0
    normals = torch.from_numpy(np.stack([truth.normals, np.full_like(truth.normals, 128)]))
    classes = torch.from_numpy(np.stack([truth.classes, np.full_like(truth.classes, 255)]))
    disparity = torch.randn(2, 128, 128, requires_grad=True)
    vectors = torch.randn(2, 3, 128, 128, requires_grad=True)
    logits = torch.randn(2, len(COARSE_CLASSES), 64, 64, requires_grad=True)
    loss = (
        losses.disparity_loss(disparity, depth)
        + losses.normal_loss(vectors, normals)
        + losses.class_loss(logits, classes, torch.ones(len(COARSE_CLASSES)))
    )
    loss.backward()
    gradients = [each.grad for each in (disparity, vectors, logits)]
    for each in gradients:
        assert each is not None
        assert torch.isfinite(each).all()
        assert not each[1].any()  # of the second image nothing is known
    assert gradients[0] is not None
    assert not gradients[0][0, :50].any()


def test_in_a_mirrored_view_normals_point_the_other_way() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    right = np.full((64, 64, 3), (255, 127, 127), np.uint8)
    sample = {"rgb": rgb, "truth_normal": right}
    seen = set()
    for number in range(1, 20):
        view = make_view({"key": "a", **sample}, number)
        again = make_view({"key": "a", **sample}, number)
        assert np.array_equal(view.image, again.image)
        assert not view.depth.any()
        assert (view.classes == 255).all()
        seen.add(int(view.normals[..., 0].max()))
    assert seen == {0, 255}


@pytest.mark.parametrize("config", [HeadsConfig(), HeadsConfig("pixels"), HeadsConfig(linear=True)])
def test_heads_come_back_from_their_file(config: HeadsConfig, tmp_path) -> None:
    torch.manual_seed(0)
    heads = Heads(config).half().float().eval()
    save_heads(heads, tmp_path / "heads.safetensors", {"steps": "0"})
    loaded = load_heads(tmp_path / "heads.safetensors")
    features, pixels = torch.randn(2, 1536, 3, 5), torch.rand(2, 3, 24, 40)
    with torch.inference_mode():
        first, second = heads(features, pixels), loaded(features, pixels)
    assert loaded.config == config
    assert first.disparity.shape == (2, 24, 40)
    assert first.logits.shape == (2, len(COARSE_CLASSES), 12, 20)
    assert torch.allclose(first.normals.norm(dim=1), torch.ones(()), atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_another_file_is_not_taken_for_heads(tmp_path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="holds no heads"):
        load_heads(tmp_path / "other.safetensors")


@pytest.mark.packages
def test_training_goes_on_after_an_interruption_as_if_there_had_been_none(
    truth_dataset, tmp_path, monkeypatch
) -> None:
    from fourmill.labelers.training import heads as training

    def run(out: str, **more) -> bytes:
        config = training.TrainHeads(
            (truth_dataset,), tmp_path / out, tmp_path / "cache", 1.0, steps=4, batch_size=2, **more
        )
        return training.train(config).read_bytes()

    whole = run("whole")
    monkeypatch.setattr(training, "_CHECKPOINT_STEPS", 2)
    step = training._step

    def stop_at_three(state, *rest):
        if state.step == 3:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(training, "_step", stop_at_three)
    with pytest.raises(KeyboardInterrupt):
        run("interrupted")
    monkeypatch.setattr(training, "_step", step)
    assert run("interrupted") == whole
    found = json.loads((tmp_path / "whole" / "errors.json").read_text())
    assert found["images"] == 2
    with pytest.raises(ConfigError, match="another configuration"):
        run("interrupted", seed=1)
