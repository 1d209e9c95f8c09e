"""The tiny models of the golden values: weights by arithmetic, the reference's own masks."""

from ast import literal_eval
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fourmill.manifests.modalities import FOURM_7, Masking, modality
from fourmill.train.domains import Domains
from fourmill.train.exchange import load_reference
from fourmill.train.model import FourM, ModelShape
from fourmill.train.selection import PADDING, Selection, compact

DATA = Path(__file__).parent.parent / "data" / "train"
BUDGET = 128
DOMAINS = Domains.of([modality(name) for name in FOURM_7])
VARIANTS: dict[str, dict[str, object]] = {
    "swiglu": {},
    "nosep": {"separate_targets": False},
    "causal": {"causal_targets": True},
    "reg": {"registers": 4},
}
NOSEP_ORDER = (
    "tok_semseg@224", "tok_depth@224", "tok_rgb@224", "caption", "det", "tok_clip@224",
    "tok_normal@224",
)  # fmt: skip
"""In which the reference drew the targets; it matters only where they attend to one another."""


@lru_cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / name, allow_pickle=False) as file:
        return dict(file)


def weights(variant: str) -> dict[str, Tensor]:
    """By the rule that README of the golden values gives: sines of the parameter's index."""
    listing = DATA / f"order_fm_micro_{'reg' if variant == 'reg' else 'swiglu'}.txt"
    state = {}
    for line in listing.read_text().splitlines():
        number, name, written = line.split("\t")
        shape = literal_eval(written)
        scale = 0.5 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.1
        value = np.sin(0.7 * np.arange(np.prod(shape), dtype=np.float64) + int(number)) * scale
        value += "norm" in name and name.endswith("weight")
        state[name] = torch.tensor(value.reshape(shape).astype(np.float32))
    for name in list(state):
        if name.startswith("decoder_embeddings") and "token_emb" in name:
            state[name.replace("token_emb", "to_logits")] = state[name]
        if name.endswith("mod_emb") and "embeddings.rgb@224" not in name:
            state[name.replace("encoder_", "decoder_")] = state[name]
    return state


def micro_model(variant: str = "swiglu") -> FourM:
    shape = ModelShape(
        dim=64, heads=4, encoder_depth=2, decoder_depth=2, **VARIANTS[variant]  # type: ignore[arg-type]
    )  # fmt: skip
    model = FourM(DOMAINS, shape)
    load_reference(model, weights(variant))
    return model


def rgb_patches() -> Tensor:
    image = np.sin(0.01 * np.arange(3 * 224 * 224)).reshape(3, 14, 16, 14, 16)
    rows = image.transpose(1, 3, 2, 4, 0).reshape(1, 196, 768)
    return torch.tensor(rows.astype(np.float32))


def masked_batch(order: Sequence[str] = DOMAINS.names) -> Selection:
    """The 16 samples that the reference masked."""
    file = golden("model.npz")
    inputs, targets = [], []
    for name in order:
        masks = [torch.tensor(~file[f"mask/{name}/{side}_mask"]) for side in ("input", "target")]
        number = torch.full(masks[0].shape, DOMAINS.index(name))
        if DOMAINS.modality(name).masking is Masking.SEQUENCE:
            token = torch.tensor(file[f"mask/{name}/tensor"]).long()
            ranks = [(each.cumsum(1) - 1).clamp(min=0) for each in masks]
            inputs.append((masks[0], number, ranks[0], token, 0 * token))
            pair = masks[1][:, 1:] & masks[1][:, :-1]
            targets.append((pair, number[:, 1:], ranks[1][:, :-1], token[:, :-1], token[:, 1:]))
            continue
        place = torch.arange(196).expand(16, -1)
        token = (place * (7 + DOMAINS.index(name))) % 4096 if name != "rgb@224" else 0 * place
        inputs.append((masks[0], number, place, token, place))
        targets.append((masks[1], number, place, 0 * place, token))
    slots = [_join(columns) for columns in (inputs, targets)]
    continuous = {"rgb@224": rgb_patches().expand(16, -1, -1)}
    return Selection(*slots[0], *slots[1], continuous)


def _join(columns: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    chosen, *values = (torch.cat(each, dim=1) for each in zip(*columns, strict=True))
    return compact(chosen, BUDGET, *values, empty=(PADDING, 0, 0, 0))
