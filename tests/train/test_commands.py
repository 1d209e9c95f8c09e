"""The verbs of the command line, on a run that takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.train import commands, runs


@pytest.fixture(scope="module")
def run_file(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, and the file that says so."""
    folder = tmp_path_factory.mktemp("run")
    section = {
        "out": str(folder / "run"), "pixel_patch": 8, "steps": 4, "batch_size": 4, "eval_every": 2,
        "model": {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
        "masking": {"input_tokens": 16, "target_tokens": 16}, "threads": 1, "log_every": 1,
    }  # fmt: skip
    whole = {"root": dataset.url, "tokenizers": str(folder / "none"), "train": section}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(whole))
    commands.train(path)
    return path


def test_training_says_what_it_did_as_json(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.train(run_file, json=True)
    report = json.loads(capsys.readouterr().out)
    assert (report["step"], report["steps_done"]) == (4, 0)
    assert set(report["val_losses"]) == {"tok_caption", "tok_colour@32", "tok_light@32"}
    assert set(report["unigram_losses"]) == set(report["val_losses"])
    assert json.loads((Path(report["out"]) / "model.json").read_text())["step"] == 4


def test_a_finished_run_is_recognised_without_torch(run_file: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fourmill.train import commands\n"
        "commands.train(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_file)], capture_output=True, text=True, check=True
    )
    assert "nothing to do" in done.stderr


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.train(run_file, set=(f"out={tmp_path / 'new'}",), dry_run=True, json=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 4
    assert "rgb@32" in plan["inputs"]
    assert not (tmp_path / "new").exists()


def test_predictions_are_drawn_with_losses_beside(run_file: Path, tmp_path: Path) -> None:
    commands.predict(run_file, out=tmp_path, samples=2)
    report = json.loads((tmp_path / "predictions.json").read_text())
    assert report["inputs"] == ["rgb@32"]
    assert report["samples"] == ["rocket", "clock"]
    with (
        Image.open(tmp_path / "predictions.png") as panels,
        Image.open(tmp_path / "curves.png") as curves,
    ):
        assert panels.size[1] > 4 * 128  # two rows for each of two samples
        assert curves.size[0] > 600


def test_beginning_anew_keeps_the_old_run(run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    for steps in (2, 3):
        commands.train(run_file, set=(f"out={out}", f"steps={steps}"), fresh=True)
    assert runs.finished_steps(out) == 3
    assert runs.finished_steps(tmp_path / "again.old-1") == 2


def test_there_is_nothing_to_predict_with_before_training(run_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no trained model: `fourmill train` makes one"):
        commands.predict(run_file, out=tmp_path, set=(f"out={tmp_path / 'none'}",))
    with pytest.raises(ConfigError, match="expected name=value"):
        commands.train(run_file, set=("steps",))
