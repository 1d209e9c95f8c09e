"""Move a box to the right, and see whether depth and segments follow.

    python examples/move_a_box.py configs/demo.yaml

Held-out samples with a box: their caption is held, and depth and segments are predicted before and
after, from the same seed. Prints how many tokens changed where the box was or came to be, and how
many elsewhere; writes `move_a_box-<key>.png` for each.
"""

import sys
from pathlib import Path

from fourmill.manifests.dataset import Dataset
from fourmill.train.config import load_train_config
from fourmill.train.editing import changes, draw_edit, probe
from fourmill.train.edits import MoveBox
from fourmill.train.sampler import Sampler


def main(config: Path) -> None:
    """Edit, print, draw."""
    sampler = Sampler.load(config)
    dataset = Dataset.open(load_train_config(config).root)
    change = MoveBox("0", right=0.3, down=0.0)
    targets = ["depth", "semseg_coarse"]
    for key, edited in probe(sampler, dataset, change, ["caption"], targets):
        for name, each in changes(sampler, edited).items():
            inside, outside = each.get("changed_inside", 0.0), each.get("changed_outside", 0.0)
            print(f"{key:>24}  {name:<24} in the box {inside:6.1%}, elsewhere {outside:6.1%}")
        draw_edit(sampler, edited, f"{key}: a box is moved").save(f"move_a_box-{key}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
