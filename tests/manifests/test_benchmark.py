"""The benchmark of shards runs, and says what its readers rely on."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shards.py"
FIELDS = {
    "name", "value", "unit", "baseline", "baseline_value", "ratio", "goal", "ok", "machine",
}  # fmt: skip


def test_the_benchmark_prints_one_json_object_a_line():
    command = [sys.executable, str(SCRIPT), "--json", "--samples", "20", "--shards", "2"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert {each["name"].split("/")[1] for each in results} == {
        "read-max", "read-sum", "write", "commit",
    }  # fmt: skip
    for each in results:
        assert each.keys() == FIELDS
        assert each["ok"] == (each["ratio"] >= each["goal"])
