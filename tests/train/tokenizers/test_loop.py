"""Tokenizers are trained on what a dataset stores, and whenever killed go on to the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.train.stopping import Stop, stop_after
from tests.train.tokenizers.conftest import NETWORKS

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.pipeline.cli import main
from fourmill.tokenize import registry
from fourmill.tokenize.crops import crop_settings
from fourmill.train import runs
from fourmill.train.metrics import read_metrics
from fourmill.train.tokenizers.config import TokenizerTrainConfig, load_config
from fourmill.train.tokenizers.loop import train
from fourmill.train.tokenizers.plan import plan_run

CONFIGS = Path(__file__).parents[3] / "configs" / "tokenizers"
MakeConfig = Callable[..., TokenizerTrainConfig]


def weights(config: TokenizerTrainConfig) -> bytes:
    return (plan_run(config).tokenizer / "model.safetensors").read_bytes()


def told(config: TokenizerTrainConfig, kind: str) -> list[dict[str, object]]:
    """The lines of the log, without what a clock says."""
    lines = [each for each in read_metrics(config.out / "metrics.jsonl") if each["kind"] == kind]
    timed = {"samples_per_second", "seconds"}
    return [{name: value for name, value in each.items() if name not in timed} for each in lines]


@pytest.mark.parametrize(
    ("network", "modality"),
    [
        ("vq", "rgb"), ("vq", "greys"), ("vq", "patch_colours"), ("levels", "depth"),
        ("vectors", "grid_means"), ("diffusion", "depth"),
    ],
)  # fmt: skip
def test_every_kind_of_network_learns_and_becomes_a_tokenizer(
    make_config: MakeConfig, network: str, modality: str
) -> None:
    if network == "diffusion":
        pytest.importorskip("diffusers")
    config = make_config(
        modality=modality, network=NETWORKS[network], steps=60, batch_size=8, lr=3e-3,
        log_every=10, eval_every=60, checkpoint_every=60,
    )  # fmt: skip
    run = plan_run(config)
    train(run)
    losses = [each["loss"] for each in told(config, "train")]
    assert losses[-1] < losses[0]
    tokenizer = registry.load(run.tokenizer)
    assert tokenizer.spec.reads == modality
    record = json.loads((run.tokenizer / "training.json").read_text())
    assert record["metrics"] == told(config, "val")[-1]["metrics"]
    assert record["metrics"]["codes_used"] > 0


@pytest.mark.parametrize("network", ["vq", "vectors", "diffusion"])
def test_an_interrupted_training_ends_with_the_same_bytes(
    make_config: MakeConfig, tmp_path: Path, network: str
) -> None:
    if network == "diffusion":
        pytest.importorskip("diffusers")
    options = {
        "network": NETWORKS[network], "modality": "grid_means" if network == "vectors" else "depth",
    }  # fmt: skip
    whole = make_config(out=tmp_path / "whole", **options)
    train(plan_run(whole))
    broken = make_config(out=tmp_path / "broken", **options)
    for step in (1, 3):
        with pytest.raises(Stop):
            train(plan_run(broken), stop_after(step))
    train(plan_run(broken))
    assert weights(whole) == weights(broken)
    for kind in ("train", "val"):
        assert told(whole, kind) == told(broken, kind)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_training_changes_nothing(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    options = {"steps": 100, "checkpoint_every": 5, "eval_every": 50}
    whole = make_config(out=tmp_path / "whole", **options)
    train(plan_run(whole))
    broken = make_config(out=tmp_path / "broken", **options)
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(broken.model_dump(mode="json")))
    command = [sys.executable, "-m", "fourmill.pipeline.cli", "tokenizer", "train", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while runs.finished_steps(broken.out) < 10:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not plan_run(broken).tokenizer.exists()
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["step"] == 100
    assert 0 < report["steps_done"] < 100
    assert weights(whole) == weights(broken)


@pytest.mark.slow
def test_two_processes_train_what_one_does(make_config: MakeConfig, tmp_path: Path) -> None:
    options = {"steps": 4, "eval_every": 4}
    alone = make_config(out=tmp_path / "alone", **options)
    train(plan_run(alone))
    together = make_config(out=tmp_path / "together", **options)
    file = tmp_path / "together.yaml"
    file.write_text(yaml.safe_dump(together.model_dump(mode="json")))
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "fourmill.pipeline.cli", "tokenizer", "train", str(file),
        ],
        check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    one, two = (load_file(plan_run(each).tokenizer / "model.safetensors")
                for each in (alone, together))  # fmt: skip
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-4)
    perplexity = [[each["perplexity"] for each in told(config, "train")]
                  for config in (alone, together)]  # fmt: skip
    assert perplexity[0] == pytest.approx(perplexity[1], rel=0.05)


def test_the_average_of_weights_is_what_becomes_the_tokenizer(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    averaged = make_config(out=tmp_path / "averaged")
    last = make_config(out=tmp_path / "last", ema=0.0)
    for each in (averaged, last):
        train(plan_run(each))
    checkpoint = runs.checkpoints(averaged.out)[0]
    network = load_file(checkpoint / "network.safetensors")
    name = "encoder.pos_emb" if "encoder.pos_emb" not in network else "quant_proj.weight"
    of_average = load_file(plan_run(averaged).tokenizer / "model.safetensors")
    of_last = load_file(plan_run(last).tokenizer / "model.safetensors")
    assert torch.equal(of_last[name], network[name])
    assert not torch.equal(of_average[name], network[name])


def test_a_picture_that_cannot_be_read_is_left_out_and_named(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config()
    train(plan_run(config))
    assert "sample chelsea is left out" in caplog.text
    tokenizer = registry.load(plan_run(config).tokenizer)
    image = np.full((64, 64, 3), 127, np.uint8)
    tokens = tokenizer.tokenize([image], [crop_settings("grey", 64, 64, 1)], [(64, 64)], ["grey"])
    assert tokens.shape == (1, 1, 16)


def test_a_finished_training_is_not_done_again_and_another_one_is_refused(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    train(plan_run(config))
    before = (plan_run(config).tokenizer / "model.safetensors").stat().st_mtime_ns
    train(plan_run(config), stop_after(0))
    assert (plan_run(config).tokenizer / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"lr was 0\.001, now 0\.01.*--fresh"):
        plan_run(make_config(lr=0.01))


def test_a_loss_that_is_not_finite_stops_before_the_step(make_config: MakeConfig) -> None:
    config = make_config(lr=1e12, steps=40, warmup=0, clip=None, commitment=1e30)
    with pytest.raises(TrainingError, match="lower `lr`"):
        train(plan_run(config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "nosuch"}, "nosuch"),
        ({"modality": "grid_means"}, "found network.kind vq for vector; expected vectors"),
        ({"network": NETWORKS["vectors"]}, "expected vq, diffusion or controlled"),
        ({"modality": "greys", "network": NETWORKS["diffusion"]}, "diffusion is for pictures"),
        ({"losses": {"cross_entropy": 1.0}}, "cross_entropy is for classes"),
        ({"modality": "depth", "perceptual": {"network": "resnet18"}}, "for pictures alone"),
        ({"perceptual": {"network": "resnet1"}}, "timm has no 'resnet1'"),
        ({"mask": "nosuch"}, "nosuch"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_a_step(
    make_config: MakeConfig, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(plan_run(make_config(**options)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("stesp: 3", "steps"),
        ("network: {kind: vq, heads: 5}", "dim 384 is not a multiple of the 5 heads"),
        ("network: {kind: vqq}", "vq"),
        ("size: 30", "size 30 is not a multiple of patch 16"),
        ("losses: {l3: 1.0}", "l1"),
        ("modalities: heat.yaml", "modalities: found 'heat.yaml', expected a list"),
        ("steps: [", "YAML"),
    ],
)
def test_a_file_that_says_nonsense_is_refused_with_what_it_should_say(
    tmp_path: Path, words: str, message: str
) -> None:
    path = tmp_path / "rgb.yaml"
    path.write_text(f"root: r\nout: o\nmodality: rgb\n{words}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_losses_are_those_of_the_modality_s_file_unless_the_training_has_its_own(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    file = tmp_path / "patch_colours.yaml"
    file.write_text("{name: patch_colours, kind: features, channels: 4, losses: {cosine: 3}}")
    training = tmp_path / "training.yaml"

    def learned(name: str, **options: object) -> list[dict[str, object]]:
        config = make_config(modality="patch_colours", out=tmp_path / name, steps=2, **options)
        values = config.model_dump(mode="json", exclude={"modalities"})
        if name.startswith("file"):
            values["modalities"] = [str(file)]
        training.write_text(yaml.safe_dump(values))
        assert main(["tokenizer", "train", str(training)]) == 0
        return told(config, "train")

    of_the_file = learned("file")
    assert of_the_file == learned("own", losses={"cosine": 3.0})
    assert learned("file-and-own", losses={"l2": 1.0}) == learned("own-l2", losses={"l2": 1.0})
    assert of_the_file != learned("by-kind")
    # what was trained can be asked for again, and nothing is done twice
    again = json.loads((tmp_path / "file" / "run.json").read_text())["config"]
    training.write_text(yaml.safe_dump(again))
    assert load_config(training).losses == {"cosine": 3.0}
    assert main(["tokenizer", "train", str(training)]) == 0


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_can_be_read(path: Path) -> None:
    config = load_config(path)
    assert config.steps > 0
    assert config.out.name == path.stem or path.stem == "cpu"
