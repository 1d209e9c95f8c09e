"""Small networks of the experts that find things and people."""

from pathlib import Path

import torch
from tests.labelers.vocabularies import bert_tokenizer


def surer(*heads: torch.nn.Module, spread: float = 1.0) -> None:
    """Heads whose scores are spread from 0 to 1, where fresh ones are sure of nothing."""
    for head in heads:
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=spread)


def rt_detr(folder: Path) -> None:
    from transformers import (
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrImageProcessor,
        RTDetrResNetConfig,
    )

    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[16, 16, 32], encoder_hidden_dim=16,
        encoder_ffn_dim=32, encoder_attention_heads=2, d_model=16, num_queries=12,
        decoder_in_channels=[16, 16, 16], decoder_ffn_dim=32, decoder_layers=1,
        decoder_attention_heads=2, decoder_n_points=2, num_labels=80,
    )  # fmt: skip
    model = RTDetrForObjectDetection(config)
    surer(*model.model.decoder.class_embed)
    model.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 96, "width": 96}).save_pretrained(folder)


def detr(folder: Path) -> None:
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    config = DetrConfig(
        backbone_config=backbone, d_model=16, num_queries=12, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, num_labels=91,
    )  # fmt: skip
    model = DetrForObjectDetection(config)
    surer(model.class_labels_classifier, spread=8.0)
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    DetrImageProcessor(size=size).save_pretrained(folder)


def grounding_dino(folder: Path) -> None:
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    tokenizer = bert_tokenizer()
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, num_queries=12, encoder_layers=1,
        decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4,
        decoder_attention_heads=4, d_model=32, encoder_n_points=2, decoder_n_points=2,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    size = {"shortest_edge": 96, "longest_edge": 160}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer).save_pretrained(
        folder
    )


def vitpose(folder: Path) -> None:
    from transformers import (
        VitPoseBackboneConfig,
        VitPoseConfig,
        VitPoseForPoseEstimation,
        VitPoseImageProcessor,
    )

    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        mlp_ratio=2, num_experts=2, part_features=8, out_indices=[2],
    )  # fmt: skip
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True)
    VitPoseForPoseEstimation(config).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)


BUILDERS = {
    "rt-detr": rt_detr,
    "detr": detr,
    "grounding-dino": grounding_dino,
    "vitpose": vitpose,
}
