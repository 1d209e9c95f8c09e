"""Push the left half of a scene away, and see what pictures and segments make of it.

    python examples/push_depth_away.py configs/demo.yaml

Held-out samples: the caption is held, depth of the left half is shifted by two deviations, and the
picture and then its segments are predicted again from the same seed. Prints how many tokens changed
on the left and on the right; writes `depth-<key>.png`.
"""

import sys
from pathlib import Path

from fourmill.manifests.dataset import Dataset
from fourmill.train.config import load_train_config
from fourmill.train.editing import changes, draw_edit, probe
from fourmill.train.edits import ShiftDepth
from fourmill.train.sampler import Sampler


def main(config: Path) -> None:
    """Edit, print, draw."""
    sampler = Sampler.load(config)
    dataset = Dataset.open(load_train_config(config).root)
    change = ShiftDepth(0.2, box=(0.0, 0.0, 0.5, 1.0))
    targets = ["rgb", "semseg_coarse"]
    for key, edited in probe(sampler, dataset, change, ["caption"], targets):
        for name, each in changes(sampler, edited).items():
            left, right = each.get("changed_inside", 0.0), each.get("changed_outside", 0.0)
            print(f"{key:>24}  {name:<24} on the left {left:6.1%}, on the right {right:6.1%}")
        draw_edit(sampler, edited, f"{key}: the left half is pushed away").save(f"depth-{key}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
