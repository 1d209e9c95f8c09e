"""Training: it learns, and whenever it is killed it goes on to the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.train.stopping import Stop, stop_after

from fourmill.manifests.errors import ConfigError, TrainingError, UnknownNameError
from fourmill.train import runs
from fourmill.train.config import MaskingConfig, Mixture, TrainConfig
from fourmill.train.loop import train
from fourmill.train.metrics import read_metrics

MakeConfig = Callable[..., TrainConfig]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(runs.checkpoints(out)[0] / "model.safetensors")


def assert_equal_weights(one: Path, other: Path) -> None:
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_a_model_learns_what_pixels_say_of_tokens(make_config: MakeConfig) -> None:
    config = make_config(
        steps=120, batch_size=16, lr=3e-3, checkpoint_every=120, eval_every=20, log_every=20,
        targets=("tok_light@32",), inputs=("rgb@32",),
    )  # fmt: skip
    train(config)
    lines = read_metrics(config.out / "metrics.jsonl")
    losses = [each["loss"] for each in lines if each["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("killed_at", [1, 3, 4])
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(
    make_config: MakeConfig, tmp_path: Path, killed_at: int
) -> None:
    whole = make_config(out=tmp_path / "whole")
    train(whole)
    broken = make_config(out=tmp_path / "broken")
    with pytest.raises(Stop):
        train(broken, stop_after(killed_at))
    train(broken)
    assert_equal_weights(whole.out, broken.out)

    def losses(out: Path) -> list[tuple[object, ...]]:
        return [
            (each["kind"], each["step"], each["by_modality"])
            for each in read_metrics(out / "metrics.jsonl")
        ]

    assert losses(whole.out) == losses(broken.out)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_training_changes_nothing(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(out=tmp_path / "killed", steps=60, checkpoint_every=1, eval_every=60)
    code = (
        "import sys, torch; from fourmill.train.config import TrainConfig\n"
        "from fourmill.train.loop import train\n"
        "train(TrainConfig.model_validate_json(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, config.model_dump_json()]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while process.poll() is None and len(runs.checkpoints(config.out)) < 1:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < runs.finished_steps(config.out) < 60
    train(config)
    whole = make_config(out=tmp_path / "whole", steps=60, checkpoint_every=60, eval_every=60)
    train(whole)
    assert_equal_weights(whole.out, config.out)


def test_a_finished_run_does_nothing(make_config: MakeConfig) -> None:
    config = make_config()
    first = train(config)
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    assert train(config) == first
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == before


def test_a_run_of_another_configuration_is_not_continued(make_config: MakeConfig) -> None:
    train(make_config(steps=2))
    with pytest.raises(ConfigError, match=r"lr was 0.001, now 0.5.*--fresh"):
        train(make_config(steps=2, lr=0.5))


def test_a_run_that_was_refused_leaves_its_folder_to_the_next(make_config: MakeConfig) -> None:
    wrong = MaskingConfig(mixture=(Mixture(inputs={"no such modality": 1.0}),))
    with pytest.raises(UnknownNameError, match="no such modality"):
        train(make_config(steps=2, masking=wrong))
    assert train(make_config(steps=2)).step == 2


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_config(out=tmp_path / "whole")
    train(whole)
    broken = make_config(out=tmp_path / "broken")
    with pytest.raises(Stop):
        train(broken, stop_after(4))
    path = runs.checkpoints(broken.out)[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    train(broken)
    assert "going back to the one before" in caplog.text
    assert_equal_weights(whole.out, broken.out)


def test_a_loss_that_is_not_finite_stops_before_the_step(make_config: MakeConfig) -> None:
    config = make_config(lr=1e30, warmup=0, clip=None)
    with pytest.raises(TrainingError, match="lower `lr`"):
        train(config)


def test_only_the_last_checkpoints_are_kept(make_config: MakeConfig) -> None:
    config = make_config(steps=6, checkpoint_every=1, keep_checkpoints=2, eval_every=6)
    train(config)
    names = [each.name for each in runs.checkpoints(config.out)]
    assert names == ["step-00000006", "step-00000005"]
    state = json.loads((runs.checkpoints(config.out)[0] / "state.json").read_text())
    assert state["step"] == 6
