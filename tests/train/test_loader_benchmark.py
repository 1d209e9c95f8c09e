"""The benchmark of the loader runs, and says what its readers rely on."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "loader.py"


def test_the_benchmark_tells_every_stage_and_which_one_bounds() -> None:
    words = "--samples 600 --shards 3 --batch 64 --pictures 32 --repeats 1"
    command = [sys.executable, str(SCRIPT), "--json", *words.split()]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    stages = {each["name"]: each for each in results if each["baseline"].startswith("the whole")}
    assert stages.keys() == {
        "loader/order", "loader/tokens",
        "loader/rgb/tokens", "loader/rgb/decoding", "loader/rgb/cropping",
    }  # fmt: skip
    assert sum(each["baseline"].endswith("which it bounds") for each in results) == 2
    named = {(each["name"], each["baseline"]): each for each in results}
    assert named["loader/whole", "webdataset, zipped"]["goal"] == 100
    assert named["loader/whole", "the goal"]["baseline_value"] == 100_000
    assert named["loader/rgb", "Pillow, bare"]["goal"] == 0.8
    for each in results:
        assert each["ok"] == (each["ratio"] >= each["goal"])
