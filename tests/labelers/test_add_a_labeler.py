"""The example of docs/add-a-labeler.md is an expert as it stands."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from fourmill.labelers.base import Labeler
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import _registry, modality
from fourmill.pipeline.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "add-a-labeler.md"


def run_checked(labeler: Any, written: str, bench) -> dict[str, Any]:
    """Good labels of all pictures, the same for each alone as for all together."""
    assert isinstance(labeler, Labeler)
    labeler.load("cpu")
    samples = bench.samples(labeler.spec.reads)
    together: list[Any] = labeler.label(samples)
    for sample, labels in zip(samples, together, strict=True):
        check_label(modality(written), labels[written])
        alone: Any = labeler.label([sample])[0]
        assert np.array_equal(alone[written], labels[written])
    return {s["key"]: labels[written] for s, labels in zip(samples, together, strict=True)}


def test_the_example_works_when_it_is_saved_as_a_file(tmp_path, bench, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "sharpness.py"
    file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    labeler: Any = importlib.import_module("sharpness").LABELER()
    found = run_checked(labeler, "sharpness", bench)
    assert found["coffee"].std() > 20  # a sharp cup before a blurred table


def test_the_template_is_an_expert_under_the_name_that_one_gives_it(
    tmp_path, bench, monkeypatch, capsys
):
    monkeypatch.setattr("fourmill.manifests.modalities._registry", dict(_registry))
    assert main(["labelers", "new", "bright-and-dull", "--folder", str(tmp_path)]) == 0
    file = tmp_path / "bright_and_dull.py"
    assert str(file) in capsys.readouterr().out
    monkeypatch.syspath_prepend(tmp_path)
    labeler: Any = importlib.import_module("bright_and_dull").LABELER()
    assert (type(labeler).__name__, labeler.spec.name) == ("BrightAndDull", "bright-and-dull")
    assert "emplate" not in file.read_text()
    run_checked(labeler, "bright_and_dull", bench)
    assert main(["labelers", "new", "bright-and-dull", "--folder", str(tmp_path)]) == 2
