"""The programs of `docs/generation.md` run, and keep what they say they keep."""

import re
from pathlib import Path
from typing import Any

import torch
from tests.train.world import World

PAGE = Path(__file__).parents[2] / "docs" / "generation.md"


def test_the_programs_of_the_page_run_as_printed(world: World) -> None:
    programs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    program = "".join(programs).replace("demo/work/builtin/run", str(world.run))
    made: dict[str, Any] = {}
    exec(program, made)
    assert made["maps"][0].shape == (32, 32)
    assert made["away"].keys() == {made["rgb"]}
    for known, found in (("hole", "inpainted"), ("middle", "outpainted"), ("room", "farther")):
        kept = made[known] >= 0
        assert 0 < kept.sum() < kept.numel()
        assert torch.equal(made[known][kept], made[found][kept])
    assert made["wider"].shape == (1, 4, 6)
    assert torch.equal(made["wider"][:, :, :4].flatten(1), made["whole"])
