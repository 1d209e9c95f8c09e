"""A loss between features: two pictures are alike if a network sees them alike."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.train.tokenizers.config import PerceptualConfig


class Perceptual(nn.Module):
    """The mean square between unit feature vectors, over some layers of a frozen network.

    After LPIPS (Zhang et al. 2018), without weights learned from judgements. Weights of a file are
    tensors alone (safetensors, or a checkpoint read with `weights_only`).

    Raises:
        ConfigError: no network of that name, or a file that is not of its weights.
        MissingPackageError: the weights are not here and cannot be fetched.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self._network = [_make(config)]  # in a list: no part of what is trained, saved or averaged
        settings = self._network[0].pretrained_cfg
        mean, deviation = settings.get("mean", (0.5,) * 3), settings.get("std", (0.5,) * 3)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self._layers = config.layers
        size = settings.get("input_size", (3, 224, 224))[-1]
        # transformers take pictures of one size alone
        self._size = int(size) if settings.get("fixed_input_size") else None

    def forward(
        self, decoded: Float[Tensor, "B 3 S S"], inputs: Float[Tensor, "B 3 S S"]
    ) -> Float[Tensor, ""]:
        """Distance of pictures in -1..1; gradients reach `decoded`."""
        with torch.no_grad():
            wanted = self._features(inputs)
        found = self._features(decoded)
        distances = [
            (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(dim=1).mean()
            for one, other in zip(found, wanted, strict=True)
        ]
        return torch.stack(distances).mean()

    def _features(self, pictures: Tensor) -> list[Tensor]:
        network = self._network[0].to(pictures.device)
        values = ((pictures + 1) / 2 - self.mean) / self.deviation
        if self._size is not None:
            values = F.interpolate(
                values, (self._size, self._size), mode="bilinear", antialias=True
            )
        features = network(values)
        chosen = self._layers or range(len(features))
        return [features[each] for each in chosen]


def _make(config: PerceptualConfig) -> Any:
    import timm
    from timm.models import load_checkpoint

    if not timm.is_model(config.network):
        raise ConfigError(
            f"perceptual.network: timm has no {config.network!r}; `timm.list_models()` has all"
        )
    try:
        network = timm.create_model(
            config.network, pretrained=config.weights is None, features_only=True
        )
        if config.weights is not None:
            backbone = getattr(network, "model", network)
            # heads, which features have no use for, may be left over
            unlike = load_checkpoint(backbone, str(config.weights), strict=False, weights_only=True)
            if unlike.missing_keys:
                raise RuntimeError(f"it lacks {unlike.missing_keys[0]}")
    except (OSError, RuntimeError) as error:
        if config.weights is None:
            raise MissingPackageError(
                f"perceptual.network {config.network}: its weights are not here ({error}); give "
                f"a file as perceptual.weights"
            ) from error
        raise ConfigError(
            f"{config.weights}: not the weights of {config.network}: {error}"
        ) from error
    return network.eval().requires_grad_(False)
