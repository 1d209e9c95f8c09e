"""Which block of an encoder a parameter belongs to, and how fast each block learns.

In fine-tuning the first blocks, which see what all pictures have, change less than the last ones
(Clark et al. 2020, as BEiT and MAE use it).
"""

import re

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_ENCODER = "backbone."


def layer_of(name: str, depth: int) -> int:
    """0 for embeddings and registers, then the blocks, `depth + 1` for all that comes after.

    >>> [layer_of(f"backbone.{name}", 12) for name in ("modality_emb", "blocks.0.norm1.weight")]
    [0, 1]
    >>> [layer_of(name, 12) for name in ("backbone.blocks.11.mlp.fc2.weight", "head.weight")]
    [12, 13]
    >>> layer_of("backbone.norm.weight", 12)
    13
    """
    found = _BLOCK.search(name)
    if name.startswith(_ENCODER) and found:
        return int(found[1]) + 1
    is_after = not name.startswith(_ENCODER) or name.startswith(f"{_ENCODER}norm.")
    return depth + 1 if is_after else 0


def lr_scale(name: str, depth: int, decay: float) -> float:
    """What a parameter's learning rate is multiplied by: 1 after the last block, and for each
    layer before it `decay` once more."""
    return float(decay ** (depth + 1 - layer_of(name, depth)))
