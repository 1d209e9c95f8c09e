"""Change a colour of the palette, and see whether the picture follows.

    python examples/change_the_palette.py configs/demo.yaml

Held-out samples: caption and depth are held, the palette's first colour becomes red, green and blue
in turn, and the picture is predicted again from the same seed. Prints its mean colour each time;
writes `palette-<colour>-<key>.png`.
"""

import sys
from pathlib import Path

import numpy as np

from fourmill.manifests.dataset import Dataset
from fourmill.train.config import load_train_config
from fourmill.train.editing import draw_edit, probe
from fourmill.train.edits import Recolour
from fourmill.train.sampler import Sampler

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


def main(config: Path) -> None:
    """Edit, print, draw."""
    sampler = Sampler.load(config)
    dataset = Dataset.open(load_train_config(config).root)
    target = sampler.resolve("rgb", target=True)
    for colour, channels in COLOURS.items():
        change = Recolour(0, channels)
        for key, edited in probe(sampler, dataset, change, ["caption", "depth"], ["rgb"], 1):
            means = [np.asarray(each).mean((0, 1)).round() for each in edited.labels[target]]
            print(f"{key:>24}  {colour:>6}: mean colour {means[0]} before, {means[1]} after")
            title = f"{key}: the palette's first colour becomes {colour}"
            draw_edit(sampler, edited, title).save(f"palette-{colour}-{key}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
