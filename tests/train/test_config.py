"""The section `train` of a run's file."""

from pathlib import Path

import pytest

from fourmill.manifests.errors import ConfigError
from fourmill.train.config import TrainConfig, load_train_config

FILE = """
root: data/photos
tokenizers: data/tokenizers
corpus: {sources: [photos], anything: goes}
train:
  out: data/run
  steps: 200
  model: {preset: tiny, decoder_depth: 2}
  masking:
    input_tokens: [64, 128]
    mixture:
      - {inputs: {rgb@112: 1000}, weight: 2}
      - {keep: {tok_color_palette: binary}}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_with_presets_ranges_and_mixtures(tmp_path: Path) -> None:
    config = load_train_config(write(tmp_path, FILE))
    assert (config.root, config.tokenizers, config.out) == (
        "data/photos", Path("data/tokenizers"), Path("data/run"),
    )  # fmt: skip
    assert (config.model.dim, config.model.heads, config.model.encoder_depth) == (384, 6, 6)
    assert config.model.decoder_depth == 2
    assert config.masking.input_range == (64, 128)
    assert config.masking.target_range == (128, 128)
    assert [each.weight for each in config.masking.mixture] == [2, 1]
    assert config.masking.mixture[1].keep_of("tok_color_palette") == "binary"


def test_options_of_the_command_line_win(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    config = load_train_config(path, {"steps": 7, "model.decoder_depth": 3})
    assert (config.steps, config.model.decoder_depth, config.model.dim) == (7, 3, 384)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("  stesp: 3", r"unknown key 'train.stesp'; did you mean 'steps'\?"),
        ("  steps: many", r"train.steps: .*integer.*found 'many'"),
        ("  lr: -1", r"train.lr: .*greater than 0"),
        ("  dtype: float8", r"train.dtype: .*'float32' or 'bfloat16'"),
    ],
)
def test_mistakes_are_named_with_what_was_meant(tmp_path: Path, wrong: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_train_config(write(tmp_path, FILE + wrong + "\n"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("preset: tiny", "preset: huge", "no preset 'huge'; known: tiny, small, base"),
        ("decoder_depth", "decoder_deph", r"'train.model.decoder_deph'; did you mean 'decoder_dep"),
        ("weight: 2", "wieght: 2", r"'train.masking.mixture.0.wieght'; did you mean 'weight'"),
        ("[64, 128]", "[128, 64]", "budgets from 128 to 64"),
        ("train:", "trian:", "has no section `train`"),
        ("root: data/photos", "", "train.root is missing"),
        ("{preset", "[preset", "not YAML"),
        ("train:", "train:\n  optimizer: muon\n  sharding: fsdp", "muon needs whole matrices"),
        ("train:", "train:\n  packed: true\n  compile: true", "cannot be compiled: take one"),
    ],
)
def test_mistakes_within_sections_are_named_too(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_train_config(write(tmp_path, FILE.replace(old, new)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: No such file"):
        load_train_config(tmp_path / "none.yaml")


def test_places_and_habits_do_not_make_another_run() -> None:
    one = TrainConfig(root="a", tokenizers=Path("t"), out=Path("o"))
    assert one.identity == one.model_copy(update={"root": "b", "log_every": 3}).identity
    assert one.identity == one.model_copy(update={"micro_batch": 3, "device": "cuda"}).identity
    assert one.identity != one.model_copy(update={"seed": 1}).identity
