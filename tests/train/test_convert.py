"""Models go to the reference's files and come back to the bit; published ones load by any name."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.train.reference import DATA, DOMAINS, masked_batch
from tests.train.stopping import Stop, stop_after
from torch import Tensor

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.manifests.modalities import FOURM_7, FOURM_21, modality
from fourmill.train import commands, runs
from fourmill.train.checkpoint import load_weights
from fourmill.train.config import TrainConfig
from fourmill.train.convert import write_model
from fourmill.train.domains import Domains
from fourmill.train.exchange import parameter_counts, reference_state
from fourmill.train.loop import train
from fourmill.train.loss import compute_loss
from fourmill.train.model import FourM, ModelShape
from fourmill.train.published import load_published
from fourmill.train.warm import start_from

TINY = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
VARIANTS: dict[str, dict[str, object]] = {
    "as published": {},
    "GELU with biases": {"gated": False, "bias": True},
    "SwiGLU with biases": {"bias": True, "dim": 24},
    "norms of queries and keys": {"qk_norm": True},
    "register tokens": {"registers": 3},
    "own modality embeddings of each side": {"share_modality_embeddings": False},
    "one table for all text": {"share_text_embeddings": True},
    "attention across targets": {"separate_targets": False, "causal_targets": True},
    "other depths and widths": {"encoder_depth": 2, "mlp_ratio": 3.0},
}
CASES = [
    *((FOURM_7, variant) for variant in VARIANTS),
    (FOURM_21, "as published"),
    (FOURM_21, "GELU with biases"),
]


def domains_of(names: tuple[str, ...]) -> Domains:
    return Domains.of([modality(name) for name in names])


def random_model(names: tuple[str, ...] = FOURM_7, **options: object) -> FourM:
    """Every number random, also those that training begins with at zero or one."""
    model = FourM(domains_of(names), ModelShape(**(TINY | options)))  # type: ignore[arg-type]
    with torch.no_grad():
        for block in (*model.encoder, *model.decoder):
            for each in (name for name in block.parameters() if name.ndim == 1):
                each += 0.1 * torch.randn_like(each)
    return model


def written(model: FourM, place: Path) -> Path:
    write_model(model, place, "reference")
    return place


def contents(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(file, framework="pt") as opened:
        return load_file(file), opened.metadata()


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(("names", "variant"), CASES, ids=lambda each: str(len(each))[:2])
def test_files_of_the_reference_come_back_to_the_bit(names, variant, tmp_path: Path) -> None:
    model = random_model(names, **VARIANTS[variant])
    first, ours, again = (tmp_path / f"{name}.safetensors" for name in ("first", "ours", "again"))
    written(model, first)
    commands.convert(str(first), ours)  # the layout that it does not have
    commands.convert(str(ours), again)
    tensors, settings = contents(first)
    assert first.read_bytes() == again.read_bytes()
    tensors_again, settings_again = contents(again)
    assert settings == settings_again
    assert_same(tensors, tensors_again)
    assert "fourmill" in contents(ours)[1]
    assert_same(reference_state(load_published(ours)), reference_state(model))


def test_a_converted_model_computes_the_same(tmp_path: Path) -> None:
    model = random_model(registers=2, qk_norm=True, share_text_embeddings=True)
    loaded = load_published(written(model, tmp_path / "model.safetensors"))
    before, after = (compute_loss(each, masked_batch()).sums for each in (model, loaded))
    torch.testing.assert_close(after, before, rtol=1e-6, atol=0)


def test_a_file_has_the_names_shapes_and_settings_of_the_reference(tmp_path: Path) -> None:
    model = FourM(DOMAINS, ModelShape(64, 4, encoder_depth=2, decoder_depth=2))
    tensors, settings = contents(written(model, tmp_path / "hub") / "model.safetensors")
    listed = (DATA / "keys_fm_micro_mod7.txt").read_text().splitlines()
    assert sorted(f"{name}\t{tuple(each.shape)}" for name, each in tensors.items()) == sorted(
        listed
    )
    assert {each.dtype for each in tensors.values()} == {torch.float32}
    values = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert {key: str(value) for key, value in values.items()} == settings
    assert settings == {
        "domains_in": str(sorted(FOURM_7)),
        "domains_out": str(sorted(set(FOURM_7) - {"rgb@224"})),
        "image_size": "224", "patch_size": "16", "dim": "64", "encoder_depth": "2",
        "decoder_depth": "2", "num_heads": "4", "mlp_ratio": "4.0", "qkv_bias": "False",
        "proj_bias": "False", "mlp_bias": "False", "norm_bias": "False", "act_layer": "SiLU",
        "gated_mlp": "True", "qk_norm": "False", "share_modality_embeddings": "False",
    }  # fmt: skip


def test_patches_are_those_of_pixels_where_tokens_have_larger_ones(tmp_path: Path) -> None:
    model = random_model(FOURM_21)
    settings = contents(written(model, tmp_path / "model.safetensors"))[1]
    assert (settings["image_size"], settings["patch_size"]) == ("224", "16")


@pytest.mark.parametrize(("dim", "heads", "hidden"), [(1024, 16, 2730), (44, 2, 117)])
def test_hidden_widths_that_are_padded_here_are_not_in_the_file(
    dim: int, heads: int, hidden: int, tmp_path: Path
) -> None:
    model = random_model(("tok_semseg@224",), dim=dim, heads=heads)
    file = written(model, tmp_path / "model.safetensors")
    tensors, _ = contents(file)
    assert tensors["encoder.0.mlp.fc1.weight"].shape == (hidden, dim)
    assert tensors["decoder.0.mlp.fc2.weight"].shape == (dim, hidden)
    loaded = load_published(file)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name)), name
    total, blocks = parameter_counts(model)
    of_blocks = 28 * dim**2 - 24 * dim**2 + 2 * 3 * hidden * dim  # attention 4 + 8, two MLPs
    assert total - blocks == 2 * 4096 * dim + dim  # two tables, one modality embedding
    assert abs(blocks - of_blocks - 8 * dim**2 - dim**2) < 20 * dim  # norms, one projection


@pytest.mark.parametrize(
    ("name", "vocabulary", "tokens", "grid", "number"),
    [
        ("rgb@224", 0, 196, (14, 14), 20716),
        ("caption", 30_000, 256, None, 32652),
        ("det", 30_000, 256, None, 30982),
        ("tok_rgb@224", 16_384, 196, (14, 14), 11606),
        ("tok_depth@224", 8_192, 196, (14, 14), 20063),
        ("tok_normal@224", 8_192, 196, (14, 14), 16656),
        ("tok_semseg@224", 4_096, 196, (14, 14), 12515),
        ("tok_clip@224", 8_192, 196, (14, 14), 11422),
        ("t5_caption", 0, 77, None, 28551),
        ("metadata", 30_000, 40, None, 1951),
        ("human_poses", 30_000, 275, None, 30584),
        ("color_palette", 30_000, 23, None, 12967),
        ("sam_instance", 30_000, 290, None, 1938),
        ("tok_canny_edge@224", 8_192, 196, (14, 14), 12520),
        ("tok_sam_edge@224", 8_192, 196, (14, 14), 7842),
        ("tok_dinov2@224", 8_192, 256, (16, 16), 26275),
        ("tok_imagebind@224", 8_192, 256, (16, 16), 6200),
        ("tok_dinov2_global", 8_192, 16, (4, 4), 29172),
        ("tok_imagebind_global", 8_192, 16, (4, 4), 12099),
        ("rgb@448", 0, 784, (28, 28), 27924),
        ("tok_rgb@448", 16_384, 784, (28, 28), 1057),
        ("tok_depth@448", 8_192, 784, (28, 28), 11499),
        ("tok_normal@448", 8_192, 784, (28, 28), 32321),
        ("tok_semseg@448", 4_096, 784, (28, 28), 10291),
        ("tok_clip@448", 8_192, 784, (28, 28), 3585),
    ],
)
def test_modalities_are_those_of_the_published_models(
    name, vocabulary, tokens, grid, number
) -> None:
    found = modality(name)
    assert (found.vocab_size, found.max_tokens, found.id) == (vocabulary, tokens, number)
    assert found.input_size == 0 if grid is None else found.grid == grid


def test_models_of_a_hub_load_by_their_id_where_there_is_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOURMILL_OFFLINE", "1")
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(tmp_path / "weights"))
    model = random_model()
    written(model, tmp_path / "weights" / "EPFL-VILAB" / "4M-7_B_CC12M")
    loaded = load_published("EPFL-VILAB/4M-7_B_CC12M")
    assert_same(reference_state(loaded), reference_state(model))
    with pytest.raises(MissingPackageError, match="run `hf download EPFL-VILAB/4M-21_XL"):
        load_published("EPFL-VILAB/4M-21_XL@main")
    commands.convert("EPFL-VILAB/4M-21_XL", tmp_path / "new", dry_run=True, json=True)
    assert json.loads(capsys.readouterr().out)["fetch"] == "hub EPFL-VILAB/4M-21_XL"
    with pytest.raises(ConfigError, match="no such file or folder, and no id of a model hub"):
        load_published(tmp_path / "nowhere")


def rewritten(file: Path, **settings: str | None) -> Path:
    """The same file with other settings, `None` for none."""
    tensors, before = contents(file)
    after = {key: value for key, value in (before | settings).items() if value is not None}
    save_file(tensors, file, after)
    return file


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domains_in": "['rgb@224', 'tok_deph@224']"}, "did you mean 'tok_depth@224'.*Known: .*"),
        ({"domains_in": None}, "lacks domains_in, and there is no config.json beside it"),
        ({"qkv_bias": "True"}, "biases in some layers and not in others are not supported"),
        ({"act_layer": "GELU"}, "GELU in gated MLPs is not supported"),
        ({"act_layer": "ReLU"}, "act_layer: .*'GELU' or 'SiLU'"),
        ({"dim": None}, "dim is missing"),
        ({"dim": "[16"}, "its settings are not readable"),
        ({"num_heads": "3"}, "dim 16 is not a multiple of 3 heads"),
        ({"dim": "32"}, r"caption.mod_emb has shape \(1, 1, 16\), this model expects \(1, 1, 32\)"),
        ({"encoder_depth": "2"}, "tensors are missing .encoder.1.attn"),
        ({"encoder_depth": "0"}, "encoder_depth: .*greater than or equal to 1"),
        ({"domains_out": "['caption', 'rgb@224']"}, "rgb@224 can only be an input"),
        ({"fourmill": "{}"}, "its metadata 'fourmill' is not readable"),
    ],
)
def test_settings_that_are_wrong_are_named(
    settings: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    file = written(random_model(), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=message):
        load_published(rewritten(file, **settings))


def test_tensors_that_are_wrong_are_named(tmp_path: Path) -> None:
    file = written(random_model(), tmp_path / "model.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"\xff" * 64):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"cannot be read as safetensors.*cut off or damaged"):
            load_published(file)
    file.write_bytes(whole)
    tensors, settings = contents(file)
    for name in ("encoder.0.norm1.bias", "encoder_embeddings.caption.pos_emb"):
        save_file(tensors | {name: tensors[name] + 1}, file, settings)
        with pytest.raises(ConfigError, match=f"{name} has other values than this model"):
            load_published(file)


@pytest.mark.parametrize("name", ["checkpoint-final.pth", "pytorch_model.bin"])
def test_pickles_are_refused_and_not_read(name: str, tmp_path: Path) -> None:
    place = tmp_path / "hub"
    place.mkdir()
    (place / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    for each in (place, place / name):
        with pytest.raises(ConfigError, match=r"a pickle, which can run any program.*safetensors"):
            load_published(each)


def test_a_trusted_pickle_becomes_readable_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model()
    monkeypatch.chdir(tmp_path)
    written(model, tmp_path / "mine")
    state = load_file("mine/model.safetensors")
    Path("mine/model.safetensors").unlink()
    torch.save({"model": state, "args": argparse.Namespace(dim=16)}, "checkpoint-final.pth")
    page = (Path(__file__).parents[2] / "docs" / "published-models.md").read_text()
    (program,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.S) if "pth" in each]
    subprocess.run([sys.executable, "-c", program], check=True)
    assert_same(reference_state(load_published("mine")), reference_state(model))


def test_a_file_without_tied_tensors_says_where_they_are(tmp_path: Path) -> None:
    """As `PyTorchModelHubMixin` writes models whose modality embeddings are shared."""
    model = random_model()
    place = written(model, tmp_path / "hub")
    file = place / "model.safetensors"
    tensors, _ = contents(file)
    shared = [
        f"decoder_embeddings.{name}.{what}"
        for name in model.domains.targets
        for what in ("mod_emb", "to_logits.weight")
    ]
    pairs = {
        name: name.replace("to_logits", "token_emb").replace(
            "decoder_", "encoder_" if name.endswith("mod_emb") else "decoder_"
        )
        for name in shared
    }
    save_file({k: v for k, v in tensors.items() if k not in pairs}, file, {"format": "pt", **pairs})
    assert_same(reference_state(load_published(place)), reference_state(model))


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with averaged weights, of modalities that are in no list."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(
        TrainConfig.model_validate({
            "root": dataset.url, "tokenizers": out / "none", "out": out, "pixel_patch": 8,
            "model": {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
            "masking": {"input_tokens": 16, "target_tokens": 16}, "steps": 2, "batch_size": 4,
            "checkpoint_every": 2, "eval_every": 2, "ema": 0.9, "threads": 1, "dtype": "float32",
        })
    )  # fmt: skip
    return out


def test_a_run_goes_to_the_reference_under_its_names(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "hub"
    commands.convert(str(run), target, dry_run=True, json=True)
    planned = json.loads(capsys.readouterr().out)
    assert not target.parent.exists()
    commands.convert(str(run), target, json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == sum(each.stat().st_size for each in target.iterdir())
    assert 0 < report.pop("bytes") - planned.pop("bytes") < 100_000
    assert report == planned
    assert report["to"] == "reference"
    assert report["inputs"] == ["rgb@32", "caption", "tok_colour@32", "tok_light@32"]
    assert "caption: vocab_size 4400, the reference has 30000" in report["notes"]
    assert "rgb@32: not a modality of the reference" in report["notes"]
    tensors, _ = contents(target / "model.safetensors")
    assert len(tensors) == report["tensors"]
    last = load_file(runs.checkpoints(run)[0] / "model.safetensors")
    assert_same(
        {name.replace(".tok_caption.", ".caption."): each for name, each in last.items()}, tensors
    )
    with pytest.raises(ConfigError, match=r"rgb@32.*take the run's folder, or.*--to fourmill"):
        load_published(target)


@pytest.mark.parametrize("weights", ["model", "average"])
def test_a_run_as_one_file_is_the_same_model(run: Path, weights, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    commands.convert(str(run), file, to="fourmill", weights=weights)
    model, original = load_published(file), load_published(run, weights)
    assert model.domains == original.domains
    assert model.shape == original.shape
    last = runs.checkpoints(run)[0]
    assert_same(reference_state(model), load_file(last / f"{weights}.safetensors"))
    fresh = FourM(model.domains, model.shape, seed=1)
    load_weights(file, fresh)  # what `generate` and `predict` read
    assert_same(reference_state(fresh), reference_state(model))
    assert_same(reference_state(load_published(run / "best", weights)), reference_state(original))


def test_what_is_there_is_replaced_only_if_asked_to_and_only_models(
    run: Path, tmp_path: Path
) -> None:
    place, file = tmp_path / "hub", tmp_path / "model.safetensors"
    for target in (place, file):
        commands.convert(str(run), target)
        with pytest.raises(ConfigError, match="--force to replace it"):
            commands.convert(str(run), target)
        commands.convert(str(run), target, force=True)
    (place / "thesis.tex").write_text("years of work")
    for target in (place, place / "thesis.tex"):
        with pytest.raises(ConfigError, match=r"no converted model .found thesis.tex"):
            commands.convert(str(run), target, force=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hub", "model.safetensors"]


def test_a_conversion_that_fails_leaves_what_was_there(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "hub"
    commands.convert(str(run), place)
    before = (place / "model.safetensors").read_bytes()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(before[:-1])
    shutil.copy(place / "config.json", tmp_path / "config.json")
    with pytest.raises(ConfigError, match="cut off or damaged"):
        commands.convert(str(broken), place, force=True)
    assert (place / "model.safetensors").read_bytes() == before


def test_a_run_without_averages_says_so(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "hub"
    commands.convert(str(run), place, to="fourmill")
    with pytest.raises(ConfigError, match="only runs with `ema` keep some"):
        load_published(place, "average")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"found no model.safetensors in this folder"):
        load_published(tmp_path / "empty")
    shutil.copytree(run, tmp_path / "begun", ignore=lambda *_: ["checkpoints", "best"])
    with pytest.raises(ConfigError, match="a run without checkpoints"):
        load_published(tmp_path / "begun")


def test_a_model_starts_from_another_of_partly_other_modalities(tmp_path: Path) -> None:
    """As super-resolution starts from 4M-7, whose texts are a dataset's `tok_caption`."""
    source = random_model(("rgb@224", "caption", "tok_rgb@224", "tok_semseg@224"))
    file = written(source, tmp_path / "model.safetensors")
    caption = Domains.of([modality("caption")]).modalities[0]
    ours = type(caption)(
        "tok_caption", modality("tok_rgb@224").kind, "tok_caption", "npy", caption.masking, 30_000,
        256, token_of="caption",
    )  # fmt: skip
    names = ("rgb@224", "tok_semseg@224", "tok_semseg@448")
    domains = Domains.of([ours, *map(modality, names)], targets=["tok_caption", "tok_semseg@448"])
    model = FourM(domains, ModelShape(**TINY), seed=3)  # type: ignore[arg-type]
    before = reference_state(model)
    start = start_from(file, model)
    after, given = reference_state(model), reference_state(source)
    assert start.copied == (
        "rgb@224 as input", "tok_caption as input", "tok_caption as target",
        "tok_semseg@224 as input",
    )  # fmt: skip
    assert start.fresh == (
        "tok_semseg@448 as input (not there)", "tok_semseg@448 as target (not there)"
    )  # fmt: skip
    assert start.unused == (
        "tok_rgb@224 as input", "tok_rgb@224 as target", "tok_semseg@224 as target"
    )  # fmt: skip
    assert "new: tok_semseg@448 as input" in str(start)
    for name, value in after.items():
        is_new = "@448" in name
        assert torch.equal(
            value, before[name] if is_new else given[name.replace(".tok_caption.", ".caption.")]
        ), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 32}, "not the blocks of this model: mask_token is 1 x 1 x 16 there, 1 x 1 x 32"),
        ({"encoder_depth": 2}, "not the blocks of this model: encoder.1.attn.proj.weight is not"),
        ({"heads": 4}, "not the blocks of this model: heads is 2 there, 4 here"),
        ({"registers": 1}, "not the blocks of this model: register_tokens is not there"),
        ({"gated": False}, r"not the blocks of this model: decoder.0.mlp.fc3.weight is not here"),
        ({"share_text_embeddings": True}, "differ, but this model ties them"),
    ],
)
def test_a_model_of_other_blocks_is_no_start_and_changes_nothing(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    file = written(random_model(), tmp_path / "model.safetensors")
    model = random_model(**options)
    before = reference_state(model)
    with pytest.raises(ConfigError, match=message):
        start_from(file, model)
    assert_same(reference_state(model), before)


def test_a_deeper_model_or_one_without_common_modalities_is_no_start(tmp_path: Path) -> None:
    deep = written(random_model(encoder_depth=2), tmp_path / "deep.safetensors")
    with pytest.raises(ConfigError, match=r"encoder.1.attn.proj.weight is not here"):
        start_from(deep, random_model())
    biased = written(random_model(bias=True), tmp_path / "biased.safetensors")
    with pytest.raises(ConfigError, match="bias is not here"):
        start_from(biased, random_model())
    other = written(random_model(("tok_semseg@224",)), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="none of the model's modalities, but tok_semseg@224"):
        start_from(other, random_model(("tok_depth@224",)))


def test_a_run_starts_from_another_and_then_goes_on_from_itself(
    run: Path, make_config: Callable[..., TrainConfig], tmp_path: Path, capsys
) -> None:
    options = {"init_from": str(run), "lr": 1e-9, "warmup": 0, "steps": 4, "threads": 1}
    whole = make_config(**options, out=tmp_path / "whole")
    train(whole)
    assert f"starts from {runs.checkpoints(run)[0]}" in capsys.readouterr().err
    began = load_file(runs.checkpoints(run)[0] / "model.safetensors")
    ended = load_file(runs.checkpoints(whole.out)[0] / "model.safetensors")
    for name, value in began.items():
        torch.testing.assert_close(value, ended[name], rtol=0, atol=1e-7, msg=name)
    assert whole.identity != make_config(**options | {"init_from": None}).identity
    broken = make_config(**options, out=tmp_path / "broken")
    with pytest.raises(Stop):
        train(broken, stop_after(3))
    assert runs.finished_steps(broken.out) == 2
    capsys.readouterr()
    train(broken)
    assert "starts from" not in capsys.readouterr().err
    assert_same(load_file(runs.checkpoints(broken.out)[0] / "model.safetensors"), ended)
