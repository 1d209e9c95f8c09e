"""Real photographs that packages carry, and a vocabulary trained on a few captions."""

from collections.abc import Mapping

import numpy as np
import pytest
import skimage.data
import torch
from jaxtyping import UInt8
from sklearn.datasets import load_sample_images

from fourmill.tokenize.vocabulary import Vocabulary, train_vocabulary

CAPTIONS = [
    "a man riding a red bicycle near the river",
    "a woman in an orange suit smiling in front of a flag",
    "a cup of coffee on a wooden table",
    "the face of a cat, looking at the camera",
    "a rocket on its launch pad at night, and a man looking at it",
]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def photographs() -> Mapping[str, UInt8[np.ndarray, "_ _ 3"]]:
    china, flower = load_sample_images().images
    names = ("astronaut", "chelsea", "coffee", "rocket")
    named = {name: getattr(skimage.data, name)() for name in names}
    return named | {"china": china, "flower": flower}


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return train_vocabulary(CAPTIONS * 3, 6_000)
