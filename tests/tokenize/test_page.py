"""The program on the page about tokenizers runs, and makes what its comments say."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "tokenizers.md"


def test_the_program_on_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(program, names)
    tokens, pictures = names["tokens"], names["pictures"]
    assert (tokens.shape, str(tokens.dtype)) == ((4, 4, 64), "int16")  # type: ignore[attr-defined]
    assert [each.shape for each in pictures] == [(64, 64, 3)] * 4  # type: ignore[attr-defined]
