"""The vision network of ImageBind (Girdhar et al. 2023, arXiv:2305.05665), for still pictures.

A vision transformer over patches of 14 pixels, in which a picture is a film of two equal frames.
Its parameters have the names of the published checkpoint, in which those of other senses are, too.
Shapes: B pictures, D width, N patches, L patches and the class vector.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from fourmill.manifests.errors import MissingPackageError

PATCH = 14
_EPSILON = 1e-6
_HERE = {
    "modality_preprocessors.vision.cls_token": "first",
    "modality_preprocessors.vision.pos_embedding_helper.pos_embed": "positions",
    "modality_preprocessors.vision.rgbt_stem.proj.1.weight": "stem",
    "modality_trunks.vision.pre_transformer_layer.0.": "norm.",
    "modality_trunks.vision.blocks.": "blocks.",
}
"""What stands in the checkpoint's names for those of this module."""

_OURS = ("modality_preprocessors.vision.", "modality_trunks.vision.")


class ImageBindVision(nn.Module):
    """The trunk, without the head that leads into the space of all senses.

    Args:
        width: of the vectors.
        hidden: width inside of a block.
        side: patches of a side of the pictures that positions were learned for.
    """

    def __init__(self, width: int, depth: int, heads: int, hidden: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + side**2, width))
        self.stem = nn.Parameter(torch.zeros(width, 3, 2, PATCH, PATCH))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden) for _ in range(depth))

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L D"]:
        """The class vector, then those of the patches row by row, after the last block.

        Args:
            pixels: normalised; sides are multiples of `PATCH`.
        """
        # both frames are the same, so their kernels add up
        patches = F.conv2d(pixels, self.stem.sum(dim=2), stride=PATCH)
        rows, columns = patches.shape[-2:]
        vectors = patches.flatten(2).transpose(1, 2)
        first = self.first.expand(len(pixels), -1, -1)
        with_first = torch.cat([first, vectors], dim=1)
        states: Tensor = self.norm(with_first + self._positions(rows, columns))
        for block in self.blocks:
            states = block(states)
        return states

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 L D"]:
        if rows == columns == self.side:
            return self.positions
        grid = self.positions[:, 1:].reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        larger = F.interpolate(grid.float(), (rows, columns), mode="bicubic").to(grid.dtype)
        return torch.cat([self.positions[:, :1], larger.flatten(2).transpose(1, 2)], dim=1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = _Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attn(self.norm_1(states))
        inner = F.gelu(self.mlp["fc1"](self.norm_2(states)))
        added: Tensor = self.mlp["fc2"](inner)
        return states + added


class _Attention(nn.Module):
    """As `nn.MultiheadAttention` has it, by name too."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        joined = F.linear(states, self.in_proj_weight, self.in_proj_bias)
        parts = joined.reshape(*joined.shape[:2], 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return projected


def load_imagebind(folder: Path) -> ImageBindVision:
    """The network of a folder with `config.json` and `model.safetensors`, single precision.

    Raises:
        MissingPackageError: a file is not there or damaged, tensors are missing, unknown or of
            other shapes.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state = _vision_tensors(folder / "model.safetensors")
        network = _shaped_by(state, int(config["vision_num_heads"]))
        network.load_state_dict(state)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise MissingPackageError(
            f"{folder} does not hold ImageBind's vision network ({error!s:.300}): copy "
            "config.json and model.safetensors there again"
        ) from error
    return network.eval()


def _vision_tensors(file: Path) -> dict[str, Tensor]:
    """By this module's names; the other senses are three quarters of the file and stay there."""
    with safe_open(file, framework="pt") as opened:
        return {
            _renamed(name): opened.get_tensor(name).float()
            for name in opened.keys()  # noqa: SIM118, it is no mapping
            if name.startswith(_OURS)
        }


def _renamed(name: str) -> str:
    for theirs, here in _HERE.items():
        if name.startswith(theirs):
            return here + name.removeprefix(theirs)
    return name


def _shaped_by(state: Mapping[str, Tensor], heads: int) -> ImageBindVision:
    width = state["first"].shape[-1]
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    side = round((state["positions"].shape[1] - 1) ** 0.5)
    if heads < 1 or width % heads:
        raise ValueError(f"vision_num_heads {heads} does not divide the width {width}")
    return ImageBindVision(width, depth, heads, hidden, side)
