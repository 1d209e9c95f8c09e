"""The repository is built as its pages say."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("labelers", "manifests", "pipeline", "tokenize", "train")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def _module(file: Path) -> str:
    return "fourmill." + ".".join(file.relative_to(ROOT).with_suffix("").parts)


def test_every_folder_is_linked_into_the_import_package():
    for folder in FOLDERS:
        link = ROOT / "src" / "fourmill" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder


def test_no_folder_hides_a_module_of_the_standard_library():
    assert list(ROOT.glob("*/__init__.py")) == []
    code = "import tokenize; assert hasattr(tokenize, 'generate_tokens'), tokenize"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("file", FILES, ids=_module)
def test_a_file_is_one_idea(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    assert text.startswith('"""'), "a module says in a docstring what it is"


def test_every_module_is_imported_under_its_name():
    for file in FILES:
        assert importlib.import_module(_module(file)).__name__ == _module(file)


def test_imports_go_one_way():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
