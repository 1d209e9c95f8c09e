"""`fourmill bench` runs what `benchmarks/` holds and prints one JSON object a line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fourmill.pipeline.cli import main

FIELDS = {
    "name", "value", "unit", "baseline", "baseline_value", "ratio", "goal", "ok", "machine",
}  # fmt: skip
ENGINE = Path(__file__).parents[2] / "benchmarks" / "engine.py"


def test_bench_prints_what_a_benchmark_finds(capfd):
    words = "--only plan --shards 20 --repeats 1"
    assert main(["bench", "engine", "--json", f"--arguments={words}"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.keys() == FIELDS
    assert found["name"] == "engine/plan/20"
    assert found["ok"] == (found["ratio"] <= found["goal"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engin"], "did you mean 'engine'"),
        (["results"], "no benchmark called 'results'"),
        (["heads"], "needs arguments: fourmill bench heads --arguments="),
        (["engine", "shards", "--arguments=x"], "for one benchmark"),
    ],
)
def test_a_benchmark_that_is_not_there_is_told(words, message, capsys):
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ray
def test_the_benchmark_of_the_engine_measures_the_driver():
    # the other parts run the same engine with networks, and take minutes
    command = [sys.executable, str(ENGINE), "--json", "--units", "300", "--only", "driver"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [json.loads(each)["name"].split("/")[1:3] for each in lines]
    parts = ["driver", "driver-flat", "driver-memory"]
    assert names == [[part, way] for way in ("together", "apart") for part in parts]
