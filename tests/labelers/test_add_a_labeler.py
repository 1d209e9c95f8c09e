"""The example of docs/add-a-labeler.md is an expert as it stands."""

import importlib.util
import re
from pathlib import Path

import numpy as np

from fourmill.labelers.base import Labeler
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality

PAGE = Path(__file__).parents[2] / "docs" / "add-a-labeler.md"


def test_the_example_works_when_it_is_saved_as_a_file(tmp_path, bench):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "sharpness.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("sharpness_of_the_docs", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    labeler = module.LABELER()
    assert isinstance(labeler, Labeler)
    labeler.load("cpu")
    samples = bench.samples(labeler.spec.reads)
    together = labeler.label(samples)
    for sample, labels in zip(samples, together, strict=True):
        check_label(modality("sharpness"), labels["sharpness"])
        (alone,) = labeler.label([sample])
        assert np.array_equal(alone["sharpness"], labels["sharpness"])
    cup = next(labels for sample, labels in zip(samples, together, strict=True)
               if sample["key"] == "coffee")["sharpness"]  # fmt: skip
    assert cup.std() > 20
