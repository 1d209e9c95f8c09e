"""Every configuration in `configs/` can be run, and the published ones are as published."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from fourmill.manifests.modalities import FOURM_7, FOURM_21, Kind, Modality, modality
from fourmill.train.config import TrainConfig, load_train_config
from fourmill.train.domains import Domains
from fourmill.train.exchange import parameter_counts
from fourmill.train.loop import build_model
from fourmill.train.masking import Masking
from fourmill.train.tokenizers.config import load_config
from fourmill.train.transfer import config as transfer

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
RUNS = [path for path in FILES if "train" in yaml.safe_load(path.read_text())]
PUBLISHED = [path for path in RUNS if path.parent.name in ("4m-7", "4m-21")]
ABLATIONS = [path for path in RUNS if path.parent.name == "ablations"]
SIZES = {"base": 198e6, "large": 705e6, "xlarge": 2.8e9}


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


def definition(name: str) -> Modality:
    """As a dataset with the published tokenizers and the shared vocabulary defines it."""
    stored = name.removeprefix("tok_")
    if stored == name or "@" in name or name.endswith("_global"):
        return modality(name)
    return replace(modality(stored), name=name, kind=Kind.TOKENS, folder=name, token_of=stored)


def domains_of(config: TrainConfig) -> Domains:
    assert config.inputs is not None
    assert config.targets is not None
    names = sorted({*config.inputs, *config.targets})
    return Domains.of(map(definition, names), config.inputs, config.targets)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_is_read(path: Path) -> None:
    if path in RUNS:
        load_train_config(path)
    elif path.parent.name == "tokenizers":
        load_config(path)
    elif path.parent.name == "transfer":
        transfer.load_config(path)


@pytest.mark.parametrize("path", [*PUBLISHED, *ABLATIONS], ids=name_of)
def test_models_have_the_published_size(path: Path) -> None:
    config = load_train_config(path)
    with torch.device("meta"):
        model = build_model(domains_of(config), config.model)
    assert config.model.preset is not None
    _, blocks = parameter_counts(model)
    assert blocks == pytest.approx(SIZES[config.model.preset], rel=0.01)
    Masking(model.domains, config.masking, seed=0)  # which refuses what the model has not
    for component in config.masking.mixture:
        assert component.keep.keys() <= set(model.domains.names)
    assert not config.model.share_text_embeddings  # else its weights are not the reference's


@pytest.mark.parametrize(
    ("name", "batch", "part", "tokens_in", "tokens_out", "base_lr", "total", "warmup", "clip"),
    [
        ("4m-7/b", 8192, 128, (128, 128), 128, 1e-4, 500, 10, None),
        ("4m-7/l", 8192, 64, (128, 128), 128, 1e-4, 500, 10, 1e4),
        ("4m-7/xl", 8192, 64, (128, 128), 128, 2e-5, 500, 10, 3),
        ("4m-7/b-text-to-image", 4096, 128, (64, 256), 256, 1e-4, 100, 10, None),
        ("4m-7/l-text-to-image", 8192, 64, (64, 256), 256, 1e-4, 100, 10, 1e4),
        ("4m-7/xl-text-to-image", 4096, 32, (64, 256), 256, 2e-5, 100, 5, 3),
        ("4m-7/l-super-resolution", 4096, 32, (64, 1024), 1024, 1e-4, 100, 5, 3),
        ("4m-21/b", 4096, 64, (256, 256), 256, 1e-4, 500, 10, None),
        ("4m-21/l", 4096, 64, (256, 256), 256, 1e-4, 500, 10, 1e4),
        ("4m-21/xl", 4096, 32, (256, 256), 256, 2e-5, 500, 10, 3),
    ],
)
def test_training_is_as_published(
    name, batch, part, tokens_in, tokens_out, base_lr, total, warmup, clip
) -> None:
    config = load_train_config(CONFIGS / f"{name}.yaml")
    assert (config.batch_size, config.micro_batch) == (batch, part)
    assert config.masking.input_range == tokens_in
    assert config.masking.target_range == (tokens_out, tokens_out)
    assert config.lr == pytest.approx(base_lr * batch / 256)
    tokens = batch * (tokens_in[1] + tokens_out)
    epoch = 10_000_000
    epochs = math.ceil(total * 1e9 / (epoch * tokens / batch))
    assert config.steps == epochs * (epoch // batch)
    assert config.warmup == math.ceil(warmup * 1e9 / tokens)
    assert config.clip == clip
    assert (config.schedule, config.min_lr, config.optimizer) == ("cosine", 0, "adamw")
    assert (config.betas, config.weight_decay, config.ema) == ((0.9, 0.95), 0.05, 0)
    assert (config.masking.law, config.loss, config.dtype) == ("faithful", "mod_rank", "bfloat16")


def test_every_published_training_is_checked_against_its_figures() -> None:
    (marker,) = test_training_is_as_published.pytestmark
    assert {case[0] for case in marker.args[1]} == {name_of(path) for path in PUBLISHED}


@pytest.mark.parametrize("size", ["b", "l", "xl"])
def test_modalities_are_those_of_the_published_models(size: str) -> None:
    for family, names in (("4m-7", FOURM_7), ("4m-21", FOURM_21)):
        domains = domains_of(load_train_config(CONFIGS / family / f"{size}.yaml"))
        written = {
            each.token_of if each.token_of in names else each.name for each in domains.modalities
        }
        assert written == set(names)
        assert set(domains.inputs) - set(domains.targets) == {"rgb@224", "t5_caption"} & set(names)


def alphas(path: str, side: str) -> dict[str, list[float]]:
    """By modality, in each component."""
    config = load_train_config(CONFIGS / path)
    names = {"inputs": config.inputs, "targets": config.targets}[side]
    components = [getattr(each, side) for each in config.masking.mixture]
    return {name: [each.get(name, each["*"]) for each in components] for name in names or ()}


def test_alphas_are_as_published() -> None:
    inputs, targets = (alphas("4m-7/b.yaml", side) for side in ("inputs", "targets"))
    assert inputs.pop("rgb@224") == [1000, 0.5]
    assert {tuple(each) for each in inputs.values()} == {(0, 0.5)}
    assert {tuple(each) for each in targets.values()} == {(0.5, 0.5)}
    inputs, targets = (alphas("4m-21/b.yaml", side) for side in ("inputs", "targets"))
    assert inputs.pop("rgb@224") == [0.01, 0.1, 1, 10, 1000, 0.05, 0.05]
    assert inputs.pop("tok_caption") == [0.01, 0.1, 1, 10, 0, 5, 0]
    assert inputs.pop("t5_caption") == [0.01, 0.1, 1, 10, 0, 0, 5]
    assert {tuple(each) for each in inputs.values()} == {(0.01, 0.1, 1, 10, 0, 0.05, 0.05)}
    assert targets.pop("tok_caption") == [0.01, 0.1, 1, 10, 0.5, 0, 0.5]
    assert {tuple(each) for each in targets.values()} == {(0.01, 0.1, 1, 10, 0.5, 0.5, 0.5)}
    inputs, targets = (alphas("4m-7/l-super-resolution.yaml", s) for s in ("inputs", "targets"))
    assert inputs.pop("tok_caption") == [0.05, 5, 0.2, 1]
    assert inputs.pop("tok_rgb@224") == inputs.pop("tok_rgb@448") == [5, 0.05, 0.2, 1]
    assert {tuple(each) for each in inputs.values()} == {(0.05, 0.05, 0.2, 1)}
    assert targets.pop("tok_rgb@448") == [5, 1, 1, 1]
    assert {tuple(each) for each in targets.values()} == {(0.05, 1, 1, 1)}
    inputs, targets = (alphas("4m-7/b-text-to-image.yaml", s) for s in ("inputs", "targets"))
    assert inputs.pop("tok_caption") == [5, 0.2, 1]
    assert {tuple(each) for each in inputs.values()} == {(0.05, 0.2, 1)}
    assert {tuple(each) for each in targets.values()} == {(1, 1, 1)}


def test_laws_of_what_texts_keep_are_as_published() -> None:
    mixture = load_train_config(CONFIGS / "4m-21/xl.yaml").masking.mixture
    laws = {
        name: [each.keep_of(name) for each in mixture]
        for name in ("tok_caption", "t5_caption", "tok_color_palette", "tok_det")
    }
    assert [each.weight for each in mixture] == [1, 1, 1, 1, 1, 0.5, 0.5]
    assert laws["tok_caption"] == ["random"] * 5 + ["all", "random"]
    assert laws["t5_caption"] == ["random"] * 6 + ["all"]
    assert laws["tok_color_palette"] == ["binary"] * 7
    assert laws["tok_det"] == ["random"] * 7


CHANGED = {
    "tokens": {"masking", "steps", "warmup"},
    "varied": {"masking"},
    "alpha": {"masking"},
    "targets": {"targets"},
    "inputs": {"inputs", "masking"},
    "without": {"inputs", "targets"},
    "length": {"steps"},
    "fraction": {"fraction"},
    "mae": {"inputs", "targets", "masking"},
    "beit": {"inputs", "targets", "masking"},
}


@pytest.mark.parametrize("path", ABLATIONS, ids=name_of)
def test_an_ablation_changes_one_thing(path: Path) -> None:
    base = load_train_config(CONFIGS / "ablations" / "base.yaml").model_dump()
    own = load_train_config(path).model_dump()
    differing = {key for key in own if own[key] != base[key]} - {"out"}
    kind = path.stem.partition("-")[0]
    assert differing == (CHANGED[kind] if kind != "base" else set())
    assert own["out"].name == path.stem


_IMAGENET, _IMAGENET_21K, _ADE20K, _NYUV2 = 1_281_167, 14_197_122, 20_210, 795


@pytest.mark.parametrize(
    ("name", "epochs", "pictures", "batch", "size", "decay", "rank"),
    [
        ("imagenet21k-b", 20, _IMAGENET_21K, 4096, 224, 0.75, None),
        ("imagenet21k-l", 50, _IMAGENET_21K, 4096, 224, 0.85, None),
        ("imagenet21k-xl", 20, _IMAGENET_21K, 4096, 224, 0.85, None),
        ("imagenet-b", 20, _IMAGENET, 1024, 224, 0.75, None),
        ("imagenet-l", 20, _IMAGENET, 1024, 224, 0.85, None),
        ("imagenet-xl", 20, _IMAGENET, 1024, 224, 0.85, None),
        ("ade20k-b", 64, _ADE20K, 64, 512, None, None),
        ("ade20k-l", 64, _ADE20K, 64, 512, None, None),
        ("ade20k-xl", 128, _ADE20K, 64, 512, None, 64),
        ("nyuv2-depth-b", 1000, _NYUV2, None, 256, None, None),
        ("nyuv2-depth-l", 1000, _NYUV2, None, 256, None, None),
        ("nyuv2-depth-xl", 1000, _NYUV2, None, 256, None, 8),
    ],
)
def test_transfers_are_as_published(name, epochs, pictures, batch, size, decay, rank) -> None:
    config = transfer.load_config(CONFIGS / "transfer" / f"{name}.yaml")
    seen = config.steps * config.batch_size
    assert seen == pytest.approx(epochs * pictures, rel=1e-3)
    assert config.size == size
    people_made = {"ade20k": "truth_semseg_ade20k", "nyuv2": "truth_depth"}
    people_made["imagenet"] = "truth_imagenet.0.class_name"
    assert config.label == people_made.get(name.split("-")[0], "caption")
    assert batch in (None, config.batch_size)
    assert decay in (None, config.layer_decay)
    assert rank == (config.lora.rank if config.lora else None)
    if config.start is not None:
        before = transfer.load_config(CONFIGS / "transfer" / f"{config.start.name}.yaml")
        assert (before.out, before.model) == (config.start, config.model)
