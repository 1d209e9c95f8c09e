"""Batches and precision by device, so that a label never depends on what else is in its batch."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_accelerator(device: str) -> bool:
    """Whether it is a GPU: half precision, and batches that fill it."""
    return device.startswith("cuda")


def precision(device: str) -> Any:
    """The floating-point type that networks run in: half on a GPU, single elsewhere."""
    import torch

    return torch.float16 if is_accelerator(device) else torch.float32


def in_equal_batches(
    items: Sequence[Item],
    shape: Callable[[Item], Hashable],
    size: int,
    run: Callable[[list[Item]], Sequence[Result]],
) -> list[Result]:
    """One result an item, in order, from batches of exactly `size` items of one shape.

    A matrix product rounds differently in a batch of another size. So the last batch of a shape is
    filled up with copies of its first item, whose results are dropped.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(shape(item), []).append(index)
    results: dict[int, Result] = {}
    for group in groups.values():
        for start in range(0, len(group), size):
            chunk = group[start : start + size]
            filled = chunk + chunk[:1] * (size - len(chunk))
            found = run([items[index] for index in filled])
            results.update(zip(chunk, found, strict=False))
    return [results[index] for index in range(len(items))]
