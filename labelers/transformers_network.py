"""A network of transformers with its own processor: one sample's tensors in, one result out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.base import LabelerSpec
from fourmill.labelers.batches import in_equal_batches, is_accelerator, precision
from fourmill.labelers.required import check_packages
from fourmill.labelers.sizes import stretched

Tensors = dict[str, Any]
"""What a processor makes of one sample, by the name of the network's argument, without a batch."""
Result = TypeVar("Result")


class TransformersNetwork:
    """What an expert's repository holds, on one device: half precision on a GPU, single elsewhere.

    Args:
        model: name of the class in transformers that loads the network.
        processor: name of the class that prepares its inputs.
        half: the floating-point type on a GPU, for what float16 is too narrow for.
        processor_options: settings of the processor in place of those that came with the weights.
    """

    def __init__(
        self,
        spec: LabelerSpec,
        device: str,
        model: str,
        processor: str = "AutoImageProcessor",
        half: str = "float16",
        processor_options: Mapping[str, object] | None = None,
    ) -> None:
        check_packages(spec)
        import torch
        import transformers

        assert spec.hub is not None
        self.torch: Any = torch
        self.device = device
        dtype = getattr(torch, half) if is_accelerator(device) else precision(device)
        self.processor: Any = spec.hub.build(
            getattr(transformers, processor), **(processor_options or {})
        )
        network = spec.hub.build(getattr(transformers, model), dtype=dtype)
        self.model: Any = network.to(device).eval()
        self._batch_size = spec.resources.batch_size if is_accelerator(device) else 1

    def pixels(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Any:
        """The image as a tensor `[3, H, W]`, strips stretched until a network can read them."""
        # a copy, because samples may lie in memory that cannot be written
        return self.torch.from_numpy(np.array(stretched(rgb))).permute(2, 0, 1)

    def inputs(self, **what: Any) -> Tensors:
        """What the processor makes of one sample."""
        found = self.processor(**what, return_tensors="pt")
        tensors = {n: each for n, each in found.items() if isinstance(each, self.torch.Tensor)}
        return {name: each[0].to(self.device) for name, each in tensors.items()}

    def run(
        self, inputs: Sequence[Tensors], forward: Callable[[Tensors], Sequence[Result]]
    ) -> list[Result]:
        """One result a sample, in order, whatever else is in the batch.

        Args:
            forward: from tensors of samples with equal shapes to one result each.
        """

        def batch(group: Sequence[Tensors]) -> Sequence[Result]:
            with self.torch.inference_mode():
                return forward({name: self._stack(name, group) for name in group[0]})

        return in_equal_batches(inputs, _shapes, self._batch_size, batch)

    def _stack(self, name: str, group: Sequence[Tensors]) -> Any:
        stacked = self.torch.stack([each[name] for each in group])
        return stacked.to(self.model.dtype) if stacked.is_floating_point() else stacked


def _shapes(inputs: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(each.shape) for _, each in sorted(inputs.items()))
