"""A mistake in a configuration is told in words, with the nearest name."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from fourmill.manifests.errors import ConfigError
from fourmill.pipeline.config import CorpusConfig, DownloadConfig, FilterConfig, load_config

GOOD = """
root: data
tokenizers: tokenizers
corpus: {sources: [photos]}
label: {labelers: [edges]}
"""


def _load(tmp_path: Path, text: str, **overrides):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_config(path, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "tokenise: {}", "unknown key 'tokenise'; did you mean 'tokenizers'|'tokenize'"),
        (GOOD.replace("sources", "source"), "did you mean 'sources'"),
        (GOOD + "tokenize: {text: {vocab: 1}}", "did you mean 'vocab_size'"),
        (GOOD + "tokenize: {num_crops: 0}", "tokenize.num_crops: .* greater than or equal to 1"),
        ("just words", "expected a mapping"),
        ("{", "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        _load(tmp_path, text)


def test_settings_are_replaced_by_their_dotted_names(tmp_path):
    config = _load(tmp_path, GOOD, **{"corpus.samples_per_shard": 7, "root": "other"})
    assert (config.corpus.samples_per_shard, config.root) == (7, "other")


def test_every_shipped_configuration_is_valid():
    folder = Path(__file__).parents[2] / "configs"
    assert [load_config(each).root for each in sorted(folder.glob("*.yaml"))]


@pytest.mark.parametrize("model", [CorpusConfig, FilterConfig, DownloadConfig])
def test_every_field_of_a_corpus_is_on_the_page(model):
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    missing = [
        name for name, field in model.model_fields.items()
        if f"{name}`" not in page and not isinstance(field.default, BaseModel)
    ]  # fmt: skip
    assert missing == []
    assert all(field.description or field.default for field in model.model_fields.values())
