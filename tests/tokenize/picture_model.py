"""A small diffusion model of pictures with random weights, in diffusers' folders."""

from pathlib import Path
from typing import Any

import torch
from tests.labelers.networks_dense import clip_tokenizer

from fourmill.tokenize.diffusion import Sampling
from fourmill.tokenize.drawing import Drawing, PictureModel, new_controlnet

DRAWING = Drawing(model="acme/pictures", side=32, sampling=Sampling(steps=3, at_once=2))


def save_picture_model(folder: Path, **scheduler: Any) -> Path:
    """Its parts are those of Stable Diffusion 1.5, each in its folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder.mkdir(parents=True)
    clip_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=53,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "text_encoder": CLIPTextModel(text),
            "unet": UNet2DConditionModel(
                block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                cross_attention_dim=16, attention_head_dim=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            "vae": AutoencoderKL(
                block_out_channels=(8, 8), norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
            ),
            "scheduler": DDIMScheduler(
                **{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
                | scheduler
            ),
        }  # fmt: skip
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text("{}")
    # repositories have the same once more in a form of its own, which nothing here reads
    (folder / "all-in-one.safetensors").write_bytes(b"")
    return folder


def save_controlnet(folder: Path, latent: int, drawing: Drawing = DRAWING) -> Path:
    """A ControlNet for codes of some width, which are heard: a new one adds nothing."""
    network: Any = new_controlnet(PictureModel(drawing), latent)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if not parameter.detach().any() or "cond_embedding" in name:
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    network.save_pretrained(folder)
    return folder
