"""What a network says of whole images, one by one, as transformers' post-processing reads it."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fourmill.labelers.transformers_network import Tensors, TransformersNetwork


def image_outputs(
    network: TransformersNetwork,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    names: Sequence[str],
    constants: Mapping[str, Any] | None = None,
) -> list[SimpleNamespace]:
    """The network's outputs for each image as a batch of one, in single precision.

    Images go through the processor one by one: in a batch it would pad them to one size, and what
    a network says of an image would depend on its neighbours.

    Args:
        names: of the output's tensors that post-processing reads; one that a network does not
            give is `None`.
        constants: further inputs, the same for every image.
    """

    def forward(batch: Tensors) -> list[SimpleNamespace]:
        outputs = network.model(**batch)
        count = len(batch["pixel_values"])
        return [_row(outputs, names, index) for index in range(count)]

    inputs = [
        network.inputs(images=network.pixels(each)) | dict(constants or {}) for each in images
    ]
    return network.run(inputs, forward)


def _row(outputs: Any, names: Sequence[str], index: int) -> SimpleNamespace:
    columns = {name: getattr(outputs, name, None) for name in names}
    return SimpleNamespace(**{
        name: None if column is None else column[index : index + 1].float()
        for name, column in columns.items()
    })  # fmt: skip
