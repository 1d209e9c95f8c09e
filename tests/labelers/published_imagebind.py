"""ImageBind's network for pictures, of torch's own parts, with the names of its checkpoint.

The parts are those that the checkpoint was trained with: a convolution over two frames, and torch's
attention.
"""

import torch
from torch import Tensor, nn

_SIDE = 16  # patches of 224 pixels


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, hidden)
        self.mlp.fc2 = nn.Linear(hidden, width)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, states: Tensor) -> Tensor:
        inner = self.norm_1(states)
        states = states + self.attn(inner, inner, inner, need_weights=False)[0]
        return states + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm_2(states))))


class PublishedImageBind(nn.Module):
    """The vision network with its head, for squares of 224 pixels."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        vision = nn.Module()
        vision.cls_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        vision.rgbt_stem = nn.Module()
        stem = nn.Conv3d(3, width, (2, 14, 14), (2, 14, 14), bias=False)
        vision.rgbt_stem.proj = nn.Sequential(nn.Identity(), stem)
        vision.pos_embedding_helper = nn.Module()
        positions = torch.randn(1, 1 + _SIDE**2, width) * width**-0.5
        vision.pos_embedding_helper.pos_embed = nn.Parameter(positions)
        trunk = nn.Module()
        trunk.pre_transformer_layer = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Identity())
        trunk.blocks = nn.Sequential(*(_Block(width, heads, hidden) for _ in range(depth)))
        head = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Identity(), nn.Linear(width, 1024, bias=False)
        )
        self.modality_preprocessors = nn.ModuleDict({"vision": vision})
        self.modality_trunks = nn.ModuleDict({"vision": trunk})
        self.modality_heads = nn.ModuleDict({"vision": head})

    def forward(self, pixels: Tensor) -> Tensor:
        """The vectors of class and patches `[B, 257, width]` after the last block."""
        vision, trunk = self.modality_preprocessors["vision"], self.modality_trunks["vision"]
        frames = pixels[:, :, None].repeat(1, 1, 2, 1, 1)
        patches = vision.rgbt_stem.proj(frames).flatten(2).transpose(1, 2)
        states = torch.cat([vision.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        states = states + vision.pos_embedding_helper.pos_embed
        inner = trunk.pre_transformer_layer(states).transpose(0, 1)
        found: Tensor = trunk.blocks(inner).transpose(0, 1)
        return found
