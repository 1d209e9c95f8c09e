"""How well each modality says the others, with a model that `fourmill train` made.

    python examples/any_to_any.py configs/demo.yaml

Predicts every grid of tokens of held-out samples from one other modality at a time, and prints how
many tokens are exactly those of the dataset. Guessing gives one in the size of the vocabulary.
"""

import sys
from pathlib import Path

import numpy as np

from fourmill.manifests.modalities import Masking
from fourmill.train.config import load_train_config
from fourmill.train.predict import Predictor

SAMPLES = 16


def main(config: Path) -> None:
    """Print one line for each pair of an input and a target."""
    predictor = Predictor(load_train_config(config))
    domains = predictor.domains
    grids = [name for name in domains.targets if domains.modality(name).masking is Masking.IMAGE]
    rows = predictor.pick(SAMPLES)
    for given in domains.inputs:
        targets = [name for name in grids if name != given]
        found = predictor.predict([given], targets, rows)
        for name in targets:
            share = np.mean(found.tokens[name] == found.truth[name])
            print(f"{given:>24} -> {name:<24} {share:6.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
