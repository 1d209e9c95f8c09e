"""The example of docs/add-a-labeler.md is an expert as it stands."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from fourmill.labelers.base import Labeler
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality

PAGE = Path(__file__).parents[2] / "docs" / "add-a-labeler.md"


def test_the_example_works_when_it_is_saved_as_a_file(tmp_path, bench, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "sharpness.py"
    file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    labeler: Any = importlib.import_module("sharpness").LABELER()
    assert isinstance(labeler, Labeler)
    labeler.load("cpu")
    samples = bench.samples(labeler.spec.reads)
    together: list[Any] = labeler.label(samples)
    for sample, labels in zip(samples, together, strict=True):
        check_label(modality("sharpness"), labels["sharpness"])
        alone: Any = labeler.label([sample])[0]
        assert np.array_equal(alone["sharpness"], labels["sharpness"])
        if sample["key"] == "coffee":  # a sharp cup before a blurred table
            assert labels["sharpness"].std() > 20
