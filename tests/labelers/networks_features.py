"""Small networks of the experts whose labels are vectors; as wide as the real ones."""

import json
from pathlib import Path

import torch
from tests.labelers.vocabularies import save_sentencepiece


def clip(folder: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 512,
        "vision_cfg": {
            "image_size": 224, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    mean_and_std = {
        "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    about = {"model_cfg": config, "preprocess_cfg": mean_and_std}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")


def dinov2(folder: Path) -> None:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=768, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=56,
        patch_size=14,
    )  # fmt: skip
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)  # fmt: skip


def imagebind(folder: Path) -> None:
    from safetensors.torch import save_file
    from tests.labelers.published_imagebind import PublishedImageBind

    network = PublishedImageBind(width=1280, depth=1, heads=4, hidden=32)
    other_sense = {"modality_trunks.audio.blocks.0.norm_1.weight": torch.ones(8)}
    save_file(network.state_dict() | other_sense, folder / "model.safetensors")
    about = {"vision_embed_dim": 1280, "vision_num_blocks": 1, "vision_num_heads": 4}
    (folder / "config.json").write_text(json.dumps(about))


def siglip2(folder: Path) -> None:
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    small = {"num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2}
    config = Siglip2Config(
        text_config={
            **small,
            "hidden_size": 16,
            "vocab_size": 32,
            "projection_size": 768,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        vision_config={**small, "hidden_size": 768, "num_patches": 256},
    )
    Siglip2Model(config).save_pretrained(folder)
    Siglip2ImageProcessor(max_num_patches=256).save_pretrained(folder)


def t5(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=164, d_model=4096, d_kv=8, d_ff=16, num_layers=1, num_decoder_layers=1,
        num_heads=2, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    save_sentencepiece(folder)


BUILDERS = {
    "clip": clip,
    "clip-score": clip,
    "dinov2": dinov2,
    "imagebind": imagebind,
    "siglip2": siglip2,
    "t5": t5,
}
