"""Tokenizers of words that a configuration asks for, with those of the codes that they spell."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import modality
from fourmill.pipeline.config import TextTokenizerConfig, TokenizeConfig
from fourmill.pipeline.tokenizers import missing_texts, train_texts
from fourmill.tokenize import registry
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.poses import PosesTokenizer
from fourmill.tokenize.vectors import VectorTokenizer


@pytest.fixture
def dataset():
    """Of captions alone."""
    made = Mock(spec=Dataset)
    made.shard_indices.return_value = [0]
    made.samples.return_value = [{"caption": "people on a beach"}] * 9
    return made


def config(codecs: dict[str, str], *names: str) -> TokenizeConfig:
    text = TextTokenizerConfig(vocab_size=4_500, modalities=names, codecs=codecs)
    return TokenizeConfig(text=text)


def test_codecs_of_the_configuration_are_kept_with_the_words(dataset, tmp_path: Path):
    torch.manual_seed(0)
    shape = {
        "dim": 8,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "latent": 16,
        "books": 8,
        "codes": 64,
    }
    network = BottleneckAutoencoder(BottleneckConfig(channels=207, **shape))
    VectorTokenizer(modality("body_pose"), network).save(tmp_path / "poses")
    asked = config({"human_poses": str(tmp_path / "poses")}, "caption", "human_poses")
    folder = tmp_path / "tokenizers"
    assert missing_texts(asked, folder) == ["caption", "human_poses"]
    train_texts(dataset, asked, folder)
    assert missing_texts(asked, folder) == []
    tokenizer = registry.load(folder / "tok_human_poses")
    assert isinstance(tokenizer, PosesTokenizer)
    assert tokenizer.codec is not None
    assert tokenizer.codec.spec.vocab_size == 64


@pytest.mark.parametrize(
    ("codecs", "name", "message"),
    [
        ({}, "sam_instance", "give it a tokenizer of masks"),
        ({"human_pose": "here"}, "human_poses", "no such|no tokenizer here"),
        ({"sam_instance": "here"}, "sam_instance", "no tokenizer here"),
    ],
)
def test_a_codec_that_is_missing_is_told(codecs, name, message, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"{message}"):
        train_texts(dataset, config(codecs, name), tmp_path / "tokenizers")
    assert not (tmp_path / "tokenizers" / f"tok_{name}").exists()
