"""One training in several processes, in parts, and what else a long training needs."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.train.stopping import Stop, stop_after

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train import runs, saving
from fourmill.train.checkpoint import load_weights
from fourmill.train.config import TrainConfig
from fourmill.train.exchange import to_reference
from fourmill.train.launch import train_with_ray
from fourmill.train.loop import build_model, train
from fourmill.train.metrics import read_metrics
from fourmill.train.plan import plan_run
from fourmill.train.saving import best_checkpoint

MakeConfig = Callable[..., TrainConfig]


def weights(out: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(runs.checkpoints(out)[0] / f"{name}.safetensors")


def losses(config: TrainConfig, kind: str = "train") -> dict[int, dict[str, float]]:
    lines = read_metrics(config.out / "metrics.jsonl")
    return {each["step"]: each["by_modality"] for each in lines if each["kind"] == kind}


def assert_same_curve(one: TrainConfig, other: TrainConfig) -> None:
    for kind in ("train", "val"):
        expected, found = losses(one, kind), losses(other, kind)
        assert expected.keys() == found.keys()
        for step, by_modality in expected.items():
            assert found[step] == pytest.approx(by_modality, rel=1e-4), (kind, step)


def in_processes(config: TrainConfig, folder: Path, *more: str) -> list[str]:
    """The command that trains in two processes."""
    file = folder / f"{config.out.name}.yaml"
    values = config.model_dump(mode="json")
    outer = {name: values.pop(name) for name in ("root", "tokenizers")}
    file.write_text(yaml.safe_dump({**outer, "train": values}))
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "fourmill.pipeline.cli", "train", str(file), *more,
    ]  # fmt: skip


def test_a_training_that_is_killed_goes_on_with_more_or_fewer_processes(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    options = {
        "steps": 40, "eval_every": 5, "checkpoint_every": 1, "micro_batch": 1, "ema": 0.9,
    }  # fmt: skip
    whole = make_config(out=tmp_path / "whole", **options | {"checkpoint_every": 40})
    train(whole)
    killed = make_config(out=tmp_path / "killed", **options)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(in_processes(killed, tmp_path), env=environment)
    while process.poll() is None and not runs.checkpoints(killed.out):
        time.sleep(0.01)
    for each in (process, *psutil.Process(process.pid).children(recursive=True)):
        each.send_signal(signal.SIGKILL)
        each.wait()
    at = runs.finished_steps(killed.out)
    assert 0 < at < 38
    with pytest.raises(Stop):
        train(killed, stop_after(at + 1))
    sharded = killed.model_copy(update={"sharding": "fsdp"})
    subprocess.run(in_processes(sharded, tmp_path), env=environment, check=True)
    assert_same_curve(whole, killed)
    for name, value in weights(whole.out).items():
        torch.testing.assert_close(weights(killed.out)[name], value, rtol=1e-3, atol=2e-4)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data warns of its own defaults
def test_ray_trains_what_one_process_does(make_config: MakeConfig, tmp_path: Path) -> None:
    alone = make_config(out=tmp_path / "alone")
    train(alone)
    together = make_config(out=tmp_path / "together")
    train_with_ray(together, 2)
    assert_same_curve(alone, together)


def test_a_step_in_parts_is_the_step(make_config: MakeConfig, tmp_path: Path) -> None:
    whole, parts = (
        make_config(out=tmp_path / name, micro_batch=size)
        for name, size in (("whole", None), ("parts", 3))
    )
    train(whole)
    train(parts)
    assert_same_curve(whole, parts)


def test_the_published_loss_is_of_each_part(make_config: MakeConfig, tmp_path: Path) -> None:
    runs_of = {
        name: make_config(out=tmp_path / name, loss="mod_rank", micro_batch=size, steps=2)
        for name, size in (("whole", None), ("parts", 1))
    }
    for each in runs_of.values():
        train(each)
    first, second = (losses(each) for each in runs_of.values())
    assert first[1] == pytest.approx(second[1], rel=1e-5)  # of the same weights
    assert first[2] != pytest.approx(second[2], rel=1e-5)  # parts with few targets weigh more


def test_two_trainings_do_not_share_a_folder(make_config: MakeConfig) -> None:
    config = make_config()
    with runs.locked(config.out), pytest.raises(ConfigError, match="another process trains there"):
        train(config)
    train(config)


def test_more_processes_than_samples_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(batch_size=1)
    done = subprocess.run(
        in_processes(config, tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "2 processes share the 1 samples of a step" in done.stderr


def test_averaged_weights_follow_the_weights_and_are_what_is_judged(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(ema=0.5, steps=2, keep_checkpoints=2, checkpoint_every=1, eval_every=2)
    plain = make_config(out=tmp_path / "plain", steps=2, eval_every=2)
    train(config)
    train(plain)
    second, first = runs.checkpoints(config.out)
    averages = [load_file(each / "average.safetensors") for each in (first, second)]
    for name, value in load_file(second / "model.safetensors").items():
        kept = min(0.5, 2 / 11)  # at the second step
        expected = averages[0][name].lerp(value, 1 - kept)
        torch.testing.assert_close(averages[1][name], expected)
    assert losses(config) == losses(plain)
    assert losses(config, "val") != losses(plain, "val")
    run = plan_run(config)
    model = build_model(run.domains, config.model)
    load_weights(second, model)  # what predictions are made with
    assert all(torch.equal(averages[1][name], each) for name, each in to_reference(model).items())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("schedule", ["wsd", "inverse_sqrt"])
def test_every_optimizer_and_schedule_resumes_to_the_bit(
    make_config: MakeConfig, tmp_path: Path, optimizer: str, schedule: str
) -> None:
    options = {"optimizer": optimizer, "schedule": schedule, "cooldown": 2, "ema": 0.9}
    whole, broken = (make_config(out=tmp_path / name, **options) for name in ("whole", "broken"))
    train(whole)
    with pytest.raises(Stop):
        train(broken, stop_after(3))
    train(broken)
    for name in ("model", "average", "optimizer"):
        found = weights(broken.out, name)
        for key, value in weights(whole.out, name).items():
            assert torch.equal(value, found[key]), key


def test_muon_learns(make_config: MakeConfig) -> None:
    config = make_config(
        optimizer="muon", steps=60, batch_size=16, lr=3e-3, eval_every=60, checkpoint_every=60,
        log_every=20, targets=("tok_light@32",), inputs=("rgb@32",),
    )  # fmt: skip
    train(config)
    curve = [each["tok_light@32"] for each in losses(config).values()]
    assert curve[-1] < 0.8 * curve[0]


def test_the_best_checkpoint_stays(make_config: MakeConfig) -> None:
    config = make_config(steps=8, lr=0.3, clip=None, eval_every=1, checkpoint_every=1)
    result = train(config)
    judged = {step: sum(each.values()) / len(each) for step, each in losses(config, "val").items()}
    best = min(judged, key=judged.__getitem__)
    assert result.best == best_checkpoint(config.out) == config.out / f"checkpoints/step-{best:08d}"
    assert (config.out / "best" / "model.safetensors").exists()
    kept = {f"step-{each:08d}" for each in (7, 8, best)}
    assert {each.name for each in runs.checkpoints(config.out)} == kept


def test_a_full_disk_stops_the_run_and_loses_nothing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    write = saving.write_tensors

    def write_tensors(tensors, path, metadata) -> None:
        if "step-00000004" in str(path) and path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, path, metadata)

    monkeypatch.setattr(saving, "write_tensors", write_tensors)
    with pytest.raises(TrainingError, match="the disk is full"):
        train(config)
    monkeypatch.setattr(saving, "write_tensors", write)
    assert [each.name for each in (config.out / "checkpoints").iterdir()] == ["step-00000002"]
    train(config)
    assert runs.finished_steps(config.out) == config.steps


def test_an_evaluation_may_be_of_a_part_of_the_split(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(steps=1, eval_samples=1)
    train(config)
    everything = make_config(out=tmp_path / "all", steps=1)
    train(everything)
    assert losses(config, "val") != losses(everything, "val")


def test_numbers_go_to_tensorboard_too(make_config: MakeConfig) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(steps=4, tensorboard=True)
    train(config)
    events = EventAccumulator(str(config.out / "tensorboard"))
    events.Reload()
    name = "train/by_modality/tok_light@32"
    found = {each.step: each.value for each in events.Scalars(name)}
    expected = {step: each["tok_light@32"] for step, each in losses(config).items()}
    assert found == pytest.approx(expected)
    assert {"val/loss", "train/lr", "train/tokens_per_second"} <= set(events.Tags()["scalars"])


def test_steps_are_recorded_on_demand(make_config: MakeConfig) -> None:
    config = make_config()
    train(config, profiled_steps=1)
    recorded = json.loads((config.out / "profile.json").read_text())
    names = {each.get("name") for each in recorded["traceEvents"]}
    assert any("scaled_dot_product_attention" in str(each) for each in names)


def test_what_is_not_installed_is_said_before_training(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"fourmill\[wandb\]"):
        train(make_config(wandb="my-project"))
