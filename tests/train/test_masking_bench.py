"""The benchmark of masking runs, and says what its readers rely on."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "masking.py"


def test_the_benchmark_compares_both_laws_with_the_published_one() -> None:
    command = [sys.executable, str(SCRIPT), "--json", "--samples", "64", "--repeats", "1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    results = {each["name"]: each for each in map(json.loads, lines)}
    for law in ("faithful", "efficient"):
        speed = results[f"masking/{law}/cpu"]
        assert speed["goal"] == 10
        assert speed["ok"] == (speed["ratio"] >= 10)
    assert results["masking/efficient/fill/target"]["value"] == 1
    assert results["masking/faithful/fill/target"]["value"] < 1
