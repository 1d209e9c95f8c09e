"""A modality as a YAML file: what follows from it, and what is said of mistakes in it."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fourmill.manifests import modalities
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import empty_label
from fourmill.manifests.modalities import Kind, Masking, Modality, modality, token_modality
from fourmill.manifests.modality_files import load_modalities, load_modality

PAGE = Path(__file__).parents[2] / "docs" / "add-a-modality.md"


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is unknown to the next."""
    monkeypatch.setattr(modalities, "_registry", dict(modalities._registry))


def _load(tmp_path: Path, **values: object) -> Modality:
    path = tmp_path / "thermal.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True))
    return load_modality(path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kind": "image"}, (Kind.IMAGE, "png", 3, None)),
        ({"kind": "edge"}, (Kind.EDGE, "png", 1, None)),
        ({"kind": "depth"}, (Kind.DEPTH, "png", 1, None)),
        ({"kind": "normal"}, (Kind.NORMAL, "png", 3, None)),
        ({"kind": "plane", "range": [-40, 150], "unit": "°C"}, (Kind.PLANE, "png", 1, None)),
        ({"kind": "classes", "classes": ["whole", "cracked"]}, (Kind.CLASSES, "png", 2, None)),
        ({"kind": "instances"}, (Kind.INSTANCES, "png", 1, None)),
        ({"kind": "features", "channels": 96}, (Kind.FEATURE_MAP, "npy", 96, None)),
        ({"kind": "vector", "channels": 12}, (Kind.VECTOR, "npy", 12, None)),
        (
            {"kind": "sequence", "channels": 8, "max_tokens": 5},
            (Kind.SEQUENCE, "npz", 8, Masking.EMBEDDING),
        ),
        ({"kind": "text"}, (Kind.TEXT, "txt", 0, Masking.SEQUENCE)),
        ({"kind": "boxes", "max_tokens": 90}, (Kind.BOXES, "json", 0, Masking.SEQUENCE)),
    ],
)
def test_what_a_modality_is_follows_from_its_kind(values, expected, tmp_path):
    made = _load(tmp_path, name="thermal", **values)
    assert (made.kind, made.extension, made.channels, made.masking) == expected
    assert modality("thermal") == made
    assert made.folder == "thermal"
    assert made.classes == tuple(values.get("classes", ()))
    assert made.max_tokens == values.get("max_tokens", 256 if made.kind is Kind.TEXT else 0)
    empty_label(made)
    assert f"| `{values['kind']}` |" in PAGE.read_text()
    assert _load(tmp_path, name="thermal", **values) == made  # the same again is no mistake


def test_its_tokens_are_those_of_any_modality_of_its_kind(tmp_path):
    made = _load(tmp_path, name="thermal", kind="plane", range=[-40, 150])
    tokens = token_modality(made.name, 224, 16, 8192)
    assert (tokens.masking, tokens.grid, tokens.is_target) == (Masking.IMAGE, (14, 14), True)


PLANE = {"name": "thermal", "kind": "plane", "range": [0, 1]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (PLANE | {"rnage": [0, 1]}, "unknown key 'rnage'; did you mean 'range'?"),
        ({"kind": "edge"}, "name is missing"),
        ({"name": "near-red", "kind": "edge"}, "name: found 'near-red', expected letters, digits "
         "and underscores, a letter first, such as near_red"),
        ({"name": "../up", "kind": "edge"}, "name: found '../up', expected letters"),
        ({"name": "HEAD", "kind": "edge"}, "name: HEAD has a meaning of its own"),
        ({"name": "tok_heat", "kind": "edge"}, "name: tok_heat has a meaning of its own"),
        ({"name": "depth", "kind": "edge"}, "name: depth is known already, and means something"),
        ({"name": "thermal", "kind": "plain"}, "kind: there is no kind called 'plain'; did you "
         "mean 'plane'?"),
        ({"name": "thermal", "kind": "plane"}, "range is missing: a plane needs it"),
        (PLANE | {"range": [150, -40]}, "range: found the range 150 to -40, expected finite "
         "numbers, the lowest first"),
        (PLANE | {"range": [0, float("inf")]}, "range: found the range 0 to inf"),
        (PLANE | {"range": ["low", 1]}, "range.0: Input should be a valid number"),
        ({"name": "thermal", "kind": "image", "range": [0, 9]}, "range: found (0.0, 9.0), but an "
         "image has none; range is for plane"),
        ({"name": "thermal", "kind": "image", "channels": 4}, "channels: found 4, expected 3: that "
         "is what an image has"),
        ({"name": "damage", "kind": "classes"}, "classes is missing: a class map needs it"),
        ({"name": "damage", "kind": "classes", "classes": ["a", "b", "a"]}, "classes: found 3 "
         "names ('a' twice), expected 1 to 255"),
        ({"name": "damage", "kind": "classes", "classes": [True]}, "classes.0: Input should be a "
         "valid string (found True)"),
        ({"name": "clip", "kind": "features"}, "channels is missing: a feature map needs it"),
        (PLANE | {"losses": {"l3": 1}}, "losses.l3"),
        (PLANE | {"losses": {"cross_entropy": 1}}, "losses.cross_entropy: cross_entropy is the "
         "loss of classes"),
        (PLANE | {"losses": {"l1": 0}}, "losses.l1: found 0, expected more than 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_and_expectation(values, message, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        _load(tmp_path, **values)
    assert str(caught.value).startswith(f"{tmp_path / 'thermal.yaml'}: ")
    assert values.get("name") == "depth" or values.get("name") not in modalities.modality_names()


def test_a_list_of_files_and_mappings_tells_mistakes_with_their_places(tmp_path):
    path = tmp_path / "heat.yaml"
    path.write_text("{name: heat, kind: plane, range: [0, 1]}")
    inline = {"name": "damage", "kind": "classes", "classes": ["none", "some"]}
    assert [each.name for each in load_modalities([str(path), inline], "run.yaml")] == [
        "heat", "damage",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"run.yaml: unknown key 'modalities.1.clases'; did you"):
        load_modalities([str(path), {"name": "x", "kind": "classes", "clases": []}], "run.yaml")
    with pytest.raises(ConfigError, match=r"run.yaml: modalities.0.range is missing"):
        load_modalities([{"name": "x", "kind": "plane"}], "run.yaml")
    with pytest.raises(ConfigError, match=r"run.yaml: modalities.0: found 7, expected the path"):
        load_modalities([7], "run.yaml")


def test_all_losses_that_a_file_may_name_are_there_for_its_tokenizer():
    import torch

    from fourmill.manifests.modality_files import LossName
    from fourmill.tokenize.losses import reconstruction_loss

    heat = Modality("heat", Kind.PLANE, "heat", "png", channels=1, value_range=(0.0, 1.0))
    damage = Modality("damage", Kind.CLASSES, "damage", "png", channels=2)
    values, ids = torch.rand(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.int64)
    for name in LossName.__args__:  # type: ignore[attr-defined]
        if name == "cross_entropy":
            loss = reconstruction_loss(damage, torch.rand(2, 3, 4, 4), ids, {name: 1.0})
        else:
            loss = reconstruction_loss(heat, values, values, {name: 1.0})
        assert np.isfinite(float(loss))
