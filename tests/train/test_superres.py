"""Super-resolution: the small tokens are held, the picture has the right size, any way in works."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.train.labelled import SHAPE, Labelled, dense_tokenizer

from fourmill.manifests.errors import ConfigError, SampleError, UnknownNameError
from fourmill.manifests.modalities import Kind, Modality, modality, token_modality
from fourmill.tokenize.registry import load, save_text_tokenizers
from fourmill.tokenize.vocabulary import train_vocabulary
from fourmill.train import superres_commands
from fourmill.train.config import load_train_config
from fourmill.train.convert import write_model
from fourmill.train.domains import Domains
from fourmill.train.loop import build_model
from fourmill.train.superres import (
    Resolutions,
    large_target,
    load_superres,
    resolutions,
    usual_plan,
)
from fourmill.train.token_files import read_tokens, write_tokens

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL, LARGE = "tok_rgb@32", "tok_rgb@64"


@pytest.fixture(scope="module")
def run(labelled_superres: Path) -> Path:
    return labelled_superres


def as_tokens(stored: str, vocab_size: int, length: int) -> Modality:
    return replace(
        modality(stored), name=f"tok_{stored}", kind=Kind.TOKENS, folder=f"tok_{stored}",
        vocab_size=vocab_size, max_tokens=length, token_of=stored,
    )  # fmt: skip


@pytest.mark.parametrize("file", ["small-super-resolution", "4m-7/l-super-resolution"])
def test_the_configurations_are_of_models_between_two_sizes(file: str) -> None:
    config = load_train_config(CONFIGS / f"{file}.yaml")
    assert config.inputs is not None
    names = {*config.inputs, *(config.targets or ())}
    texts = [as_tokens(name.removeprefix("tok_"), 6000, 40) for name in names if "@" not in name]
    sizes = {int(name.partition("@")[2]) for name in names if "@" in name}
    known = [name for name in names if name.startswith("tok_") and "@" in name]
    grids = [_grid(name, config.pixel_patch if max(sizes) > 400 else 8) for name in known]
    inputs = [each for each in config.inputs if not each.startswith("rgb@")]
    domains = Domains.of([*texts, *grids], inputs, config.targets)
    assert resolutions(domains) == Resolutions(min(sizes), max(sizes))
    assert large_target(domains, "rgb") == f"tok_rgb@{max(sizes)}"
    if max(sizes) > 400:
        assert [domains.modality(each).max_tokens for each in domains.targets] == [784] * 5


def _grid(name: str, patch: int) -> Modality:
    base, _, size = name.removeprefix("tok_").partition("@")
    return token_modality(base, int(size), patch, 512)


def test_a_model_of_the_configuration_enlarges_a_photograph(
    labelled: Labelled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_train_config(
        CONFIGS / "small-super-resolution.yaml", {f"model.{k}": v for k, v in SHAPE.items()}
    )
    tokenizers = tmp_path / "tokenizers"
    torch.manual_seed(0)
    grids = [dense_tokenizer(name, 112) for name in ("rgb", "depth", "normal")]
    grids += [each.at_size(224) for each in grids]
    for each in grids:
        each.save(tokenizers / each.spec.modality)
    save_text_tokenizers(tokenizers, train_vocabulary(["a cat"], 4_500), ["caption"])
    definitions = [each.token_modality for each in grids]
    definitions.append(load(tokenizers / "tok_caption").token_modality)
    domains = Domains.of(definitions, config.inputs, config.targets)
    file = tmp_path / "model.safetensors"
    write_model(build_model(domains, config.model).eval(), file, "fourmill")
    out = tmp_path / "out"
    superres_commands.superres(
        str(file), image=labelled.photo, text="a cat", tokenizers=tokenizers, out=out, device="cpu",
        dtype="float32", json=True,
    )  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert (report["low"], report["high"]) == (112, 224)
    with Image.open(out / "photo-rgb.png") as picture:
        assert picture.size == (224, 224)
    keys, tokens = read_tokens(out / "tokens.safetensors")
    assert keys == ["photo"]
    assert {name: len(rows[0]) for name, rows in tokens.items()} == {
        "tok_rgb@112": 196, "tok_caption": 256, "tok_rgb@224": 784,
    }  # fmt: skip


def test_small_tokens_are_held_and_the_same_seed_gives_the_same_picture(
    labelled: Labelled, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"root": str(labelled.root), "key": ("chelsea", "rocket"), "device": "cpu"}
    one, other = tmp_path / "one", tmp_path / "other"
    superres_commands.superres(str(run), **options, out=one, json=True)
    assert json.loads(capsys.readouterr().out)["from"] == ["tok_depth@32", SMALL]
    _, tokens = read_tokens(one / "tokens.safetensors")
    stored = np.concatenate(labelled.dataset.tokens(SMALL))[:, 0]
    np.testing.assert_array_equal(np.stack(tokens[SMALL]), stored[[1, 3]])
    assert len(tokens[LARGE][0]) == 64
    with Image.open(one / "chelsea-rgb.png") as picture:
        assert picture.size == (64, 64)
    # what was generated before is a way in, too
    file = one / "tokens.safetensors"
    superres_commands.superres(str(run), tokens=file, out=other, device="cpu")
    _, again = read_tokens(other / "tokens.safetensors")
    assert set(again) == set(tokens)
    superres_commands.superres(str(run), **options, out=other)
    assert (one / "tokens.safetensors").read_bytes() == (other / "tokens.safetensors").read_bytes()
    superres_commands.superres(str(run), **options, out=other, seed=1)
    assert (one / "tokens.safetensors").read_bytes() != (other / "tokens.safetensors").read_bytes()


def test_one_tokenizer_serves_both_sizes(labelled: Labelled, run: Path, tmp_path: Path) -> None:
    for each in labelled.tokenizers.iterdir():
        if each.name != LARGE:
            (tmp_path / each.name).symlink_to(each)
    sampler = load_superres(run, tmp_path, device="cpu", dtype="float32")
    assert LARGE in sampler.tokenizers
    (picture,) = sampler.decode(LARGE, np.zeros((1, 64), np.int64))
    assert np.asarray(picture).shape == (64, 64, 3)
    small, large = sampler.tokenizers[SMALL], sampler.tokenizers[LARGE]
    theirs = [each.network.state_dict() for each in (small, large)]
    name = "quant_proj.weight"
    assert torch.equal(theirs[0][name], theirs[1][name])


def test_generation_is_as_in_the_reference_unless_told_otherwise(run: Path) -> None:
    (step,) = usual_plan(load_superres(run, device="cpu").domains, ["rgb"])
    found = (step.target, step.scheme, step.steps, step.schedule, step.temperature, step.guidance)
    assert found == (LARGE, "maskgit", 8, "cosine", 1.0, 2.0)


def test_what_is_wrong_is_told(
    labelled: Labelled, labelled_run: Path, run: Path, tmp_path: Path
) -> None:
    ask = superres_commands.superres
    with pytest.raises(ConfigError, match="give one of --image, --root and --tokens"):
        ask(str(run), device="cpu")
    with pytest.raises(UnknownNameError, match=r"there is no target .*'normal'.*Known: depth"):
        ask(str(run), image=labelled.photo, targets=("normal",), device="cpu")
    with pytest.raises(ConfigError, match="an empty text says nothing"):
        ask(str(run), image=labelled.photo, text="", device="cpu")
    with pytest.raises(ConfigError, match="name samples of it with --key"):
        ask(str(run), root=str(labelled.root), device="cpu")
    broken = tmp_path / "tokens.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="not readable as safetensors"):
        ask(str(run), tokens=broken, device="cpu")
    write_tokens(broken, ["a"], {"tok_other": torch.zeros(1, 4, dtype=torch.int64)})
    with pytest.raises(ConfigError, match="has tok_other, none of which this model takes"):
        ask(str(run), tokens=broken, device="cpu")
    write_tokens(broken, ["a"], {SMALL: torch.full((1, 16), 81)})
    with pytest.raises(SampleError, match="tokens from 81 to 81, expected -1 to 80"):
        ask(str(run), tokens=broken, device="cpu")
    same_size = labelled.train(tmp_path, inputs=[SMALL], targets=["tok_depth@32"])
    with pytest.raises(ConfigError, match="this model is not for super-resolution"):
        ask(str(same_size), image=labelled.photo, device="cpu")


def test_a_file_of_anything_but_whole_numbers_has_no_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens.safetensors"
    save_file({"tok_rgb@32": torch.full((1, 4), 1.7)}, file)
    with pytest.raises(ConfigError, match=r"tok_rgb@32 is float32, expected whole numbers"):
        read_tokens(file)
