"""What is learned of dense labels: of known places alone, the same however a batch is split."""

import pytest
import torch
from torch import Tensor

from fourmill.train.transfer.config import DepthConfig
from fourmill.train.transfer.tasks import Classification, Depth, Normals, Segmentation, Task

SAMPLES, SIDE = 5, 8
DENSE: dict[str, Task] = {
    "segmentation": Segmentation(4),
    "normals": Normals(),
    "berhu": Depth(DepthConfig(loss="berhu")),
    "l1": Depth(DepthConfig(loss="l1")),
    "scale_invariant": Depth(DepthConfig(loss="scale_invariant")),
}


def truth(task: Task) -> Tensor:
    """Labels of which every sample knows less than the one before, and the last one nothing."""
    generator = torch.Generator().manual_seed(1)
    shape = (SAMPLES, SIDE, SIDE)
    if isinstance(task, Segmentation):
        labels, unknown = torch.randint(4, shape, generator=generator).to(torch.uint8), 255
    elif isinstance(task, Depth):
        labels, unknown = torch.rand(shape, generator=generator) + 0.5, 0
    else:
        labels, unknown = torch.full((*shape, 3), 128, dtype=torch.uint8), 128
        labels[..., 2] = 255
    for number in range(SAMPLES):
        labels[number, : 2 * number] = unknown
    return labels


def gradient(task: Task, splits: list[int]) -> Tensor:
    """Of a batch that is computed in parts of some sizes, as the trainer does."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(SAMPLES, task.outputs, SIDE, SIDE, generator=generator)
    outputs.requires_grad_()
    labels = truth(task)
    known = task.known(labels)
    for part, label in zip(outputs.split(splits), labels.split(splits), strict=True):
        (task.loss(part, label) / known).backward()
    assert outputs.grad is not None
    return outputs.grad


@pytest.mark.parametrize("name", DENSE)
def test_the_gradient_is_the_same_however_a_batch_is_split(name: str) -> None:
    task = DENSE[name]
    whole = gradient(task, [5])
    assert whole.isfinite().all()
    assert whole.abs().max() > 1e-4
    for splits in ([1, 4], [2, 2, 1], [1] * 5):
        torch.testing.assert_close(gradient(task, splits), whole)


@pytest.mark.parametrize("name", DENSE)
def test_unknown_places_are_not_learned_from(name: str) -> None:
    task = DENSE[name]
    found = gradient(task, [5])
    for number in range(SAMPLES):
        assert not found[number, :, : 2 * number].any()
    assert int(task.known(truth(task))) == SIDE * (8 + 6 + 4 + 2)


def test_every_image_is_known_where_classes_are_learned() -> None:
    assert int(Classification(3, 0.0).known(torch.tensor([0, 2, 1]))) == 3
