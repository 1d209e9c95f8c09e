"""The verb `bench`: the claims, measured side by side."""

import ast
import json as json_module
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from fourmill.manifests.errors import ConfigError, UnknownNameError

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def bench(
    names: Positional[tuple[str, ...]] = (),
    arguments: str = "",
    json: bool = False,
) -> int:
    """The benchmarks of a checkout: what is claimed, beside a baseline of the same run.

    Examples: `fourmill bench`, `fourmill bench engine --json`,
    `fourmill bench heads --arguments="data/rooms --baselines build"`.

    Args:
        names: of files in `benchmarks/`; by default all that need no arguments.
        arguments: words for the benchmark, of which there is then one, in quotes.
        json: one JSON object a line: name, value, unit, baseline, baseline_value, ratio, goal, ok,
            machine.
    """
    found = _benchmarks()
    for name in names:
        if name not in found:
            raise UnknownNameError("benchmark", name, found)
        needs = found[name][1]
        if needs and not arguments:
            raise ConfigError(
                f'{name} needs arguments: fourmill bench {name} --arguments="{needs}"'
            )
    if arguments and len(names) != 1:
        raise ConfigError("--arguments are for one benchmark: fourmill bench NAME --arguments=…")
    chosen = names or [name for name, (_, needs) in found.items() if not needs]
    codes = [_run(name, found[name][0], shlex.split(arguments), json) for name in chosen]
    return 1 if any(codes) else 0


def _benchmarks() -> dict[str, tuple[Path, str]]:
    """The benchmarks by name: file, and the arguments that it cannot do without."""
    if not FOLDER.is_dir():
        raise ConfigError(f"{FOLDER}: not there; benchmarks are a part of a checkout of fourmill")
    found = {}
    for file in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(file.read_text())
        if any(isinstance(each, ast.FunctionDef) and each.name == "main" for each in tree.body):
            # a benchmark has another name than its file where that would hide a standard module
            found[_constant(tree, "NAME") or file.stem] = (file, _constant(tree, "NEEDS"))
    return found


def _constant(tree: ast.Module, name: str) -> str:
    """The value of a module's constant, read without importing what it imports."""
    for each in tree.body:
        if isinstance(each, ast.Assign) and [ast.unparse(t) for t in each.targets] == [name]:
            return str(ast.literal_eval(each.value))
    return ""


def _run(name: str, file: Path, arguments: Sequence[str], json: bool) -> int:
    command = [sys.executable, str(file), *arguments]
    if not json:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        return subprocess.run(command, check=False).returncode
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                sys.stdout.write(json_module.dumps(json_module.loads(line)) + "\n")
                sys.stdout.flush()
    return process.returncode
