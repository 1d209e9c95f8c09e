"""The benchmark of generation compares ways that generate the same, and times both."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "generation.py"


def test_text_and_grids_are_generated_both_ways() -> None:
    options = ["--json", "--size", "nano", "--samples", "1", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *options], capture_output=True, text=True, check=True
    )
    found = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    for name in ("text", "maskgit", "roar"):
        result = found[f"generate/{name}/cpu"]
        assert result["goal"] == 3
        assert result["ok"] == (result["ratio"] >= 3)
        assert result["value"] > 0
