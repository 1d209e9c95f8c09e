"""Networks of the experts that label every pixel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _varied(model: Any, *names: str) -> Any:
    """A network whose output varies: an untrained one gives nearly the same everywhere.

    Args:
        names: of parts whose weights are raised.
    """
    with torch.no_grad():
        for name, each in model.named_parameters():
            if each.ndim > 1 and any(part in name for part in names):
                each.mul_(10)
    return model


def dpt(folder: Path) -> None:
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        image_size=96, patch_size=16, backbone_out_indices=[0, 1, 2, 3], is_hybrid=False,
        neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=16,
    )  # fmt: skip
    _varied(DPTForDepthEstimation(config), "head").save_pretrained(folder)
    DPTImageProcessor(size={"height": 96, "width": 96}).save_pretrained(folder)


def depth_anything(folder: Path) -> None:
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16, head_hidden_size=8,
    )  # fmt: skip
    _varied(DepthAnythingForDepthEstimation(config), "head").save_pretrained(folder)
    # as the published ones have it, but for the size
    DPTImageProcessor(
        size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)


def depth_pro(folder: Path) -> None:
    from transformers import (
        DepthProConfig,
        DepthProForDepthEstimation,
        DepthProImageProcessor,
        Dinov2Config,
    )

    encoder = Dinov2Config(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        mlp_ratio=2,
    ).to_dict()  # fmt: skip
    config = DepthProConfig(
        patch_size=32, fusion_hidden_size=16, intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[16, 16], scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.25], scaled_images_feature_dims=[16, 16],
        use_fov_model=True, image_model_config=encoder, patch_model_config=encoder,
        fov_model_config=encoder,
    )  # fmt: skip
    DepthProForDepthEstimation(config).save_pretrained(folder)
    DepthProImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def _swin() -> Any:
    from transformers import SwinConfig

    return SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def mask2former(folder: Path) -> None:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
    )

    config = Mask2FormerConfig(
        backbone_config=_swin(), num_labels=133, feature_size=32, mask_feature_size=32,
        hidden_dim=32, encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=2,
        decoder_layers=3, num_attention_heads=2, num_queries=4,
    )  # fmt: skip
    network = Mask2FormerForUniversalSegmentation(config)
    _varied(network, "class_predictor", "mask_embedder").save_pretrained(folder)
    Mask2FormerImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, do_reduce_labels=False
    ).save_pretrained(folder)


def segformer(folder: Path) -> None:
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    config = SegformerConfig(
        num_labels=150, depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(
        size={"height": 64, "width": 64}, do_reduce_labels=True
    ).save_pretrained(folder)


def clip_tokenizer(folder: Path) -> None:
    """A tokenizer that knows the letters and nothing else."""
    from transformers import CLIPTokenizer

    letters = [chr(each) for each in range(ord("a"), ord("z") + 1)]
    pieces = letters + [f"{each}</w>" for each in letters] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    merges.write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(str(folder), model_max_length=77).save_pretrained(folder)


def oneformer(folder: Path) -> None:
    from transformers import (
        OneFormerConfig,
        OneFormerForUniversalSegmentation,
        OneFormerImageProcessor,
    )

    classes = {str(n): {"name": f"class {n}", "isthing": int(n < 80)} for n in range(133)}
    (folder / "coco_panoptic.json").write_text(json.dumps(classes))
    config = OneFormerConfig(
        backbone_config=_swin(), num_labels=133, hidden_dim=32, mask_dim=32, conv_dim=32,
        encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=2, decoder_layers=3,
        num_attention_heads=2, num_queries=4, text_encoder_width=16, text_encoder_num_layers=1,
        text_encoder_vocab_size=64, text_encoder_n_ctx=4,
    )  # fmt: skip
    network = OneFormerForUniversalSegmentation(config)
    _varied(network, "class_embed", "mask_embed").save_pretrained(folder)
    OneFormerImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, repo_path=str(folder),
        class_info_file="coco_panoptic.json",
    ).save_pretrained(folder)  # fmt: skip
    clip_tokenizer(folder)


def _sure(model: Any) -> Any:
    """A SAM with masks that it is sure of: untrained ones would all be thrown away."""
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.proj_out.bias.fill_(3)
        for each in model.mask_decoder.output_hypernetworks_mlps.parameters():
            each.mul_(400)
    return model


def sam(folder: Path) -> None:
    from transformers import SamConfig, SamImageProcessor, SamModel

    config = SamConfig(
        vision_config={
            "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "image_size": 64,
            "num_attention_heads": 2, "patch_size": 8, "window_size": 4, "num_pos_feats": 8,
            "global_attn_indexes": [1], "initializer_range": 0.5,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    _sure(SamModel(config)).save_pretrained(folder)
    SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    ).save_pretrained(folder)


def sam2(folder: Path) -> None:
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64],
                "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2], "global_attention_blocks": [3],
                "window_size_per_stage": [8, 4, 4, 2],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    _sure(Sam2Model(config)).save_pretrained(folder)
    Sam2ImageProcessor(
        size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16}
    ).save_pretrained(folder)


def marigold(folder: Path) -> None:
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        MarigoldNormalsPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    text = CLIPTextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=53,
    )  # fmt: skip
    clip_tokenizer(folder / "tokenizer")
    MarigoldNormalsPipeline(
        unet=UNet2DConditionModel(
            in_channels=8, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        scheduler=DDIMScheduler(
            prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1,
            clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing",
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(str(folder / "tokenizer")),
        prediction_type="normals",
        default_processing_resolution=64,
    ).save_pretrained(folder)  # fmt: skip


BUILDERS: dict[str, Callable[[Path], None]] = {
    "dpt": dpt,
    "depth-anything-v2-s": depth_anything,
    "depth-anything-v2-b": depth_anything,
    "depth-anything-v2-l": depth_anything,
    "depth-pro": depth_pro,
    "mask2former": mask2former,
    "segformer": segformer,
    "oneformer": oneformer,
    "sam": sam,
    "sam-edges": sam,
    "sam2": sam2,
    "marigold-normals": marigold,
}
