"""A mistake in a configuration is told in words, with the nearest name."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import modality
from fourmill.pipeline.config import CorpusConfig, DownloadConfig, FilterConfig, load_config

GOOD = """
root: data
tokenizers: tokenizers
corpus: {sources: [photos]}
label: {labelers: [edges]}
"""


HEAT = "modalities: [{name: heat_of_tests, kind: plane, range: [0, 1], losses: {l1: 2}}]"


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
        (
            GOOD + HEAT.replace("range", "rang"),
            "unknown key 'modalities.0.rang'; did you mean 'range'",
        ),
        (GOOD + "modalities: thermal.yaml", "modalities: found 'thermal.yaml', expected a list"),
        (GOOD + "modalities: [thermal.yaml]", "thermal.yaml: No such file"),
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


def test_modalities_stand_in_the_configuration_in_full_and_bring_their_losses(tmp_path):
    (tmp_path / "damage.yaml").write_text("{name: damage_of_tests, kind: classes, classes: [a, b]}")
    images = """
tokenize:
  images:
    - {modality: heat_of_tests, training: {steps: 3}}
    - {modality: heat_of_tests, size: 64, training: {losses: {l2: 1}}}
    - {modality: damage_of_tests}
"""
    also = HEAT[:-1] + f", {tmp_path / 'damage.yaml'}]"
    config = _load(tmp_path, GOOD + also + images)
    assert [each.name for each in config.modalities] == ["heat_of_tests", "damage_of_tests"]
    assert modality("damage_of_tests").classes == ("a", "b")
    assert [each.training for each in config.tokenize.images] == [
        {"losses": {"l1": 2}, "steps": 3}, {"losses": {"l2": 1}}, {},
    ]  # fmt: skip
    # what is printed as the whole is a configuration, which needs no other file
    whole = config.model_dump(mode="json", exclude={"train"})
    assert _load(tmp_path, yaml.safe_dump(whole)) == config


def test_every_shipped_configuration_is_valid():
    folder = Path(__file__).parents[2] / "configs"
    # on the dataset of another; `fourmill train` alone reads them
    trainings = {"small.yaml", "small-super-resolution.yaml"}
    found = {each.name for each in folder.glob("*.yaml")} - trainings
    assert {"demo.yaml", "relabelling.yaml"} <= found
    assert all(load_config(folder / each).root for each in found)


@pytest.mark.parametrize("model", [CorpusConfig, FilterConfig, DownloadConfig])
def test_every_field_of_a_corpus_is_on_the_page(model):
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    missing = [
        name for name, field in model.model_fields.items()
        if f"{name}`" not in page and not isinstance(field.default, BaseModel)
    ]  # fmt: skip
    assert missing == []
    assert all(field.description or field.default for field in model.model_fields.values())
