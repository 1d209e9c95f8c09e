"""The benchmark of a step compares the same model with itself, written plainly."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "training.py"


def test_the_plain_step_has_our_loss_and_both_are_timed() -> None:
    command = [
        sys.executable, str(BENCHMARK), "--json", "--repeats", "1", "--sizes", "micro",
        "--only", "step", "device",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["name"] == "train/step/micro"
    assert found["ratio"] > 0
    assert "nothing to measure" in done.stderr
