"""The encoder as a backbone computes what the model does, at any size, with adapters too."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.train.conftest import LIGHT
from tests.train.transfer.conftest import PIXELS, small_model
from torch import nn

from fourmill.manifests.errors import ConfigError, MissingPackageError, UnknownNameError
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.convert import write_model
from fourmill.train.domains import Domains
from fourmill.train.model import FourM, ModelShape
from fourmill.train.optim import make_optimizers
from fourmill.train.positions import grid_table, position_table
from fourmill.train.transfer.backbone import Backbone
from fourmill.train.transfer.config import FinetuneConfig
from fourmill.train.transfer.layers import layer_of, lr_scale
from fourmill.train.transfer.lora import (
    adapters,
    add_lora,
    load_adapters,
    merge_lora,
    save_adapters,
)
from fourmill.train.transfer.network import Network, normalised
from fourmill.train.transfer.pyramid import SimplePyramid
from fourmill.train.transfer.vitdet import PyramidBackbone, detectron2_backbone


def images(count: int = 2, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).byte()


def model_and_backbone(
    tmp_path: Path, registers: int = 0, others: tuple[str, ...] = ()
) -> tuple[FourM, Backbone]:
    model = small_model(registers)
    write_model(model, tmp_path / "model.safetensors", "fourmill")
    return model, Backbone.load(tmp_path / "model.safetensors", others)


@pytest.mark.parametrize("registers", [0, 2])
def test_features_are_what_the_models_decoder_is_given(tmp_path: Path, registers: int) -> None:
    light = torch.arange(32).view(2, 16) % 64
    light[1, 5:] = -1  # not known
    model, backbone = model_and_backbone(tmp_path, registers, ("tok_light@32",))
    for tokens in ({}, {LIGHT.name: light}):
        pixels = {PIXELS.name: images().permute(0, 2, 3, 1).contiguous()}
        selection = select_inputs(model.domains, Conditions(torch.arange(2), tokens, pixels))
        context, _ = model.encode(selection)
        place = model.input_positions(selection.input_modality, selection.input_position)
        place = place + model.modality_emb[0][selection.input_modality.clamp(min=0)]
        is_pixel = selection.input_modality == model.domains.index(PIXELS.name)
        expected = (context[:, registers:] - place)[is_pixel].view(2, 16, -1)
        features = backbone.forward_features(images(), tokens)
        found = model.decoder_proj_context(features)[:, registers : registers + 16]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert features.shape[1] == registers + 16 + (16 if tokens else 0)


def test_it_is_used_as_backbones_of_timm_are(tmp_path: Path) -> None:
    _, backbone = model_and_backbone(tmp_path, registers=1)
    transform = backbone.transform()
    picture = Image.fromarray(images(1, 40, 50)[0].permute(1, 2, 0).numpy())
    batch = transform(picture)[None]
    assert batch.shape == (1, 3, 32, 32)
    assert backbone(batch).shape == (1, backbone.num_features)
    bytes_, floats = images(), normalised(images())
    torch.testing.assert_close(backbone(bytes_), backbone(floats))
    final, maps = backbone.forward_intermediates(bytes_, indices=[0, -1], norm=True)
    assert torch.equal(final, backbone.forward_features(bytes_))
    assert [tuple(each.shape) for each in maps] == [(2, 32, 4, 4)] * 2
    assert torch.equal(maps[1].flatten(2).transpose(1, 2), final[:, 1:])
    assert torch.equal(backbone.forward_head(final), backbone(bytes_))
    assert torch.equal(backbone.pooled_registers(final), final[:, 0])
    backbone.set_grad_checkpointing()
    assert torch.equal(backbone(bytes_), backbone.forward_head(final))


def test_places_at_another_size_lie_between_those_that_were_learned() -> None:
    assert torch.equal(grid_table((4, 4), (4, 4), 32), position_table(PIXELS, 32))
    twice = grid_table((8, 8), (4, 4), 32).view(8, 8, 32)
    own = position_table(PIXELS, 32).view(4, 4, 32)
    # two cells in place of one lie a quarter to either side of it
    slow = 7  # of the slowest waves, which are nearly straight
    middle = (twice[2, 2, slow] + twice[3, 2, slow]) / 2
    torch.testing.assert_close(middle, own[1, 1, slow], rtol=1e-3, atol=1e-3)
    assert twice[0, 0, slow] < own[0, 0, slow] < twice[1, 0, slow]


def test_any_size_that_patches_fill_is_seen_and_others_are_refused(tmp_path: Path) -> None:
    _, backbone = model_and_backbone(tmp_path)
    assert backbone.forward_features(images(1, 48, 80)).shape == (1, 60, 32)
    with pytest.raises(ConfigError, match="30 x 32 pixels, expected multiples of the patch, 8"):
        backbone(images(1, 30, 32))
    with pytest.raises(ConfigError, match="this backbone reads pixels; name it among `others`"):
        backbone(images(), {LIGHT.name: torch.zeros(2, 16, dtype=torch.int64)})
    with pytest.raises(UnknownNameError, match=r"'tok_lihgt@32'; did you mean 'tok_light@32'"):
        Backbone.load(tmp_path / "model.safetensors", ("tok_lihgt@32",))


def test_a_model_that_sees_pictures_as_tokens_alone_is_told(tmp_path: Path) -> None:
    model = FourM(Domains.of([LIGHT]), ModelShape(16, 2, encoder_depth=1, decoder_depth=1))
    write_model(model, tmp_path / "tokens.safetensors", "fourmill")
    with pytest.raises(ConfigError, match="reads no pixels"):
        Backbone.load(tmp_path / "tokens.safetensors")


def test_drop_path_rises_to_the_last_block_and_is_off_in_evaluation(tmp_path: Path) -> None:
    _, backbone = model_and_backbone(tmp_path)
    before = backbone.eval()(images())
    names = set(backbone.state_dict())
    backbone.set_drop_path(0.5)
    assert [getattr(each.drop, "drop_prob", 0.0) for each in backbone.blocks] == [0.0, 0.5]
    assert set(backbone.state_dict()) == names
    assert torch.equal(backbone(images()), before)
    backbone.train()
    torch.manual_seed(0)
    many = backbone(images(1).expand(16, -1, -1, -1))
    assert len(many.unique(dim=0)) > 1


def test_the_learning_rate_falls_from_the_head_to_the_embeddings(tmp_path: Path) -> None:
    _, backbone = model_and_backbone(tmp_path, registers=1)
    network = Network(backbone, 3, None)
    layers = {name: layer_of(name, 2) for name, _ in network.named_parameters()}
    assert {name for name, layer in layers.items() if layer == 0} == {
        "backbone.register_tokens", "backbone.modality_emb", "backbone.patch_embed.proj.weight",
    }  # fmt: skip
    after = {name for name, layer in layers.items() if layer == 3}
    assert after == {"backbone.norm.weight", *(f"head.{name}" for name in (
        "norm.weight", "norm.bias", "fc.weight", "fc.bias"))}  # fmt: skip
    assert {layers[name] for name in layers if ".blocks.1." in name} == {2}
    config = FinetuneConfig(model="m", root="r", out=tmp_path, label="l", lr=1.0)
    optimizers = make_optimizers(network, config, lr_scale=lambda name: lr_scale(name, 2, 0.5))
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    network.head.fc.weight.data.normal_()
    before["head.fc.weight"] = network.head.fc.weight.detach().clone()
    network(images()).sum().backward()
    optimizers.step(1e-3)
    # AdamW's first step is the learning rate, whatever the gradient
    moved = {
        name: float((each.detach() - before[name]).abs().median())
        for name, each in network.named_parameters()
    }
    for name in ("backbone.patch_embed.proj.weight", "backbone.blocks.0.attn.proj.weight",
                 "backbone.blocks.1.attn.proj.weight", "head.fc.weight"):  # fmt: skip
        assert moved[name] == pytest.approx(1e-3 * 0.5 ** (3 - layers[name]), rel=0.1), name


def test_adapters_change_nothing_until_they_are_trained_and_merge_into_the_model(
    tmp_path: Path,
) -> None:
    _, backbone = model_and_backbone(tmp_path)
    before, names = backbone(images()), set(backbone.state_dict())
    adapted = add_lora(backbone, rank=2, alpha=4.0)
    assert {name.split(".")[-1] for name in adapted} == {"qkv", "proj", "gate_up", "fc2"}
    assert not [name for name in adapted if "patch_embed" in name]
    assert torch.equal(backbone(images()), before)
    trained = [name for name, each in backbone.named_parameters() if each.requires_grad]
    assert trained == list(adapters(backbone))
    for name, each in adapters(backbone).items():
        if "lora_B" in name and "gate_up" not in name:  # as gradients leave padding, at zero
            each.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    changed = backbone(images())
    assert not torch.allclose(changed, before, atol=1e-3)
    save_adapters(backbone, tmp_path / "adapters.safetensors")
    merge_lora(backbone)
    torch.testing.assert_close(backbone(images()), changed, rtol=1e-4, atol=1e-5)
    assert set(backbone.state_dict()) == names
    fresh = Backbone.load(tmp_path / "model.safetensors")
    add_lora(fresh, rank=2, alpha=4.0, seed=5)
    load_adapters(fresh, tmp_path / "adapters.safetensors")
    assert torch.equal(fresh(images()), changed)
    other = Backbone.load(tmp_path / "model.safetensors")
    add_lora(other, rank=3)
    with pytest.raises(ConfigError, match="or of another rank"):
        load_adapters(other, tmp_path / "adapters.safetensors")
    with pytest.raises(ConfigError, match="no matrix called kernel in a block"):
        add_lora(Backbone.load(tmp_path / "model.safetensors"), 2, layers=("kernel",))


def test_a_whole_model_takes_adapters_on_encoder_and_decoder() -> None:
    model = small_model()
    adapted = add_lora(model, rank=1)
    assert "decoder.0.cross_attn.kv" in adapted
    assert "decoder.0.cross_attn.q" in adapted
    assert "encoder.1.mlp.fc2" in adapted
    assert "decoder_proj_context" not in adapted


def test_a_pyramid_has_the_strides_that_detectors_expect(tmp_path: Path) -> None:
    _, backbone = model_and_backbone(tmp_path)
    wide = Backbone(
        Domains((PIXELS, LIGHT), (PIXELS.name,), ()),
        ModelShape(32, 2, encoder_depth=1, decoder_depth=0), PIXELS.name,
    )  # fmt: skip
    for net in (backbone, wide):
        detector = PyramidBackbone(net, channels=12)
        assert detector.shapes == {
            "p1": (12, 2), "p2": (12, 4), "p3": (12, 8), "p4": (12, 16), "p5": (12, 32),
        }  # fmt: skip
        maps = detector(normalised(images(1, 64, 96)))
        assert list(maps) == list(detector.shapes)
        for name, (channels, stride) in detector.shapes.items():
            assert maps[name].shape == (1, channels, 64 // stride, 96 // stride)
        assert detector.size_divisibility == 16
    with pytest.raises(ConfigError, match="found scales"):
        SimplePyramid(32, 8, scales=(3.0,))


def test_detectron2_is_asked_for_by_name_where_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backbone = model_and_backbone(tmp_path)
    monkeypatch.setitem(sys.modules, "detectron2.layers", None)
    with pytest.raises(MissingPackageError, match="needs detectron2"):
        detectron2_backbone(backbone)


def test_it_is_a_backbone_of_detectron2(tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="detectron2 is in no package index")
    _, backbone = model_and_backbone(tmp_path)
    made = detectron2_backbone(backbone, channels=12)
    shapes = made.output_shape()
    maps = made(normalised(images(1, 64, 64)))
    for name, each in shapes.items():
        assert maps[name].shape == (1, each.channels, 64 // each.stride, 64 // each.stride)
    assert isinstance(made, nn.Module)
