"""A modality of one's own, from its YAML file to a 4M that predicts it, as the page has it."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from fourmill.manifests import modalities
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality
from fourmill.pipeline.cli import main
from fourmill.pipeline.steps import LabelStep

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "add-a-modality.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def followed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after all that the page says was done in it."""
    folder = tmp_path_factory.mktemp("followed")
    (folder / "warmth.yaml").write_text(_blocks("yaml")[0])
    run = _blocks("yaml")[1]
    for key, place in (("root", "dataset"), ("tokenizers", "tokenizers")):
        # Ray's workers were started elsewhere, by the tests before
        run = run.replace(f"{key}: {place}\n", f"{key}: {folder / place}\n")
    (folder / "run.yaml").write_text(run)
    subprocess.run([sys.executable, "-c", _blocks("python")[0]], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in _blocks("sh")[0].splitlines():
            assert main(line.split()[1:]) == 0, line
    return folder


def test_the_labels_of_the_files_are_stored_within_a_step_of_the_range(followed):
    dataset = Dataset.open(str(followed / "dataset"))
    assert dataset.verify(deep=True) == []
    definition = dataset.modalities["warmth"].definition
    assert (definition.kind, definition.value_range) == ("plane", (-1, 1))
    files = {each.name.partition(".")[0]: each for each in followed.glob("pictures/*.npy")}
    stored = list(dataset.samples(["warmth", "source"]))
    assert len(stored) == len(files) == 16
    for sample in stored:
        given = np.load(files[sample["source"]["file"].partition(".")[0]])
        assert np.abs(sample["warmth"] - given).max() <= 1.01 / 65535


def test_its_tokens_are_both_given_to_and_asked_of_the_model(followed):
    run = json.loads((followed / "model" / "run.json").read_text())
    assert "tok_warmth@64" in run["inputs"]
    assert "tok_warmth@64" in run["targets"]
    losses = json.loads((followed / "model" / "model.json").read_text())["val_losses"]
    assert set(losses) == {"tok_warmth@64", "tok_caption"}
    assert all(0 < each < 20 for each in losses.values())
    assert (followed / "warmth.png").stat().st_size > 1000


def test_the_tokenizer_knows_warm_from_cold(followed):
    from fourmill.tokenize import registry

    tokenizer = registry.load(followed / "tokenizers" / "tok_warmth@64")
    sides = np.linspace(-0.5, 0.5, 64, dtype=np.float32)[None].repeat(64, axis=0)
    crops = [np.array([[0, 0, 64, 64, 0], [0, 0, 64, 64, 1]])]
    tokens = tokenizer.tokenize([sides], crops, [(64, 64)], ["a"])
    plain, flipped = tokenizer.detokenize(tokens[0])
    for side, label in ((1, plain), (-1, flipped)):
        assert isinstance(label, np.ndarray)
        assert side * (label[:, 48:].mean() - label[:, :16].mean()) > 0.3


def test_a_run_that_says_something_else_of_what_is_there_is_refused(followed, monkeypatch, capsys):
    # in a process of its own, which knows the modality by this file alone
    monkeypatch.chdir(followed)
    other = yaml.safe_load((followed / "run.yaml").read_text())
    other["modalities"] = [{"name": "warmth", "kind": "plane", "range": [-2, 2]}]
    (followed / "other.yaml").write_text(yaml.safe_dump(other))
    done = subprocess.run(
        [sys.executable, "-m", "fourmill.pipeline.cli", "run", "other.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "warmth is stored with other values of value_range" in done.stderr


def test_a_step_takes_what_it_writes_to_workers_that_know_nothing_of_it(monkeypatch):
    step = LabelStep("edges", 64)
    sent = pickle.dumps(step)
    definitions = {name: modality(name) for name in step.writes}
    monkeypatch.setattr(modalities, "_registry", {})
    back = pickle.loads(sent)
    assert {name: back.definition(name) for name in back.writes} == definitions
