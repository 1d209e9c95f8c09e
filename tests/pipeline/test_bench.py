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
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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
    names = [each.split("/")[1:3] for each in measured("engine", "--only driver --units 300")]
    parts = ["driver", "driver-flat", "driver-memory"]
    assert names == [[part, way] for way in ("together", "apart") for part in parts]


@pytest.mark.slow
@pytest.mark.ray
def test_the_benchmark_of_tokenizing_measures_crops_and_writing():
    # what is left out is more of the same, and takes minutes
    options = "--only crops write --networks demo --samples 64 --repeats 1"
    assert measured("tokenizing", options) == [
        "tokenize/ten-crops/demo",
        "tokenize/write/ten-crops",
        "tokenize/write-share/ten-crops",
        "tokenize/write/one-crop",
        "tokenize/write-share/one-crop",
    ]


def measured(name: str, options: str) -> list[str]:
    """What a benchmark says that it measured."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json", *options.split()]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(each)["name"] for each in lines]
