"""Experts are found by the names of their files, or through an entry point."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fourmill.labelers import registry
from fourmill.labelers.base import LabelerSpec
from fourmill.labelers.experts.edges import CannyEdges
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import FOURM_21, modality


def test_a_files_name_is_its_experts_name() -> None:
    assert "vit-s-focus" in registry.names()
    assert registry.labeler_class("edges") is CannyEdges


def test_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'depth'"):
        registry.get("dpeth")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Pretend that another package's entry points at an object of ours."""

    def install(name: str, target: str) -> None:
        entry = EntryPoint(name, target, registry.GROUP)
        monkeypatch.setattr(registry, "_installed", lambda: {name: entry})

    return install


def test_another_package_adds_an_expert(installed) -> None:
    installed("outlines", "fourmill.labelers.experts.edges:CannyEdges")
    assert "outlines" in registry.names()
    assert isinstance(registry.get("outlines"), CannyEdges)


def test_an_entry_that_is_no_labeler_is_refused(installed) -> None:
    installed("sizes", "fourmill.labelers.sizes:resized")
    with pytest.raises(ConfigError, match=r"labeler sizes: .* expected a subclass of Labeler"):
        registry.get("sizes")


def test_what_an_expert_reads_is_made_before_it_by_the_default_maker() -> None:
    assert registry.default_maker("depth") == "depth"
    assert registry.with_makers(["depth"], known={"rgb"}) == ["vit-s-focus", "depth"]
    assert registry.with_makers(["saliency"], known={"rgb", "vit_s_focus_layers"}) == ["saliency"]


def test_what_nobody_makes_must_be_there() -> None:
    with pytest.raises(ConfigError, match="dpt reads rgb, which is not there"):
        registry.with_makers(["dpt"], known=set())


@pytest.fixture
def two_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {
        "hen": LabelerSpec("hen", 1, ("det",), ("imagenet",), "", ""),
        "egg": LabelerSpec("egg", 1, ("imagenet",), ("det",), "", ""),
    }
    monkeypatch.setattr(registry, "spec", specs.__getitem__)


def test_two_that_wait_for_each_other_are_told(two_that_wait) -> None:
    with pytest.raises(ConfigError, match="hen -> egg -> hen"):
        registry.with_makers(["hen", "egg"], known={"rgb"})


PAGE = Path(__file__).parents[2] / "docs" / "experts.md"


def table_of_the_page() -> dict[str, list[str]]:
    """Experts by modality, as docs/experts.md names them: nearest, best, default."""
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {written: [each.strip(" `") for each in cells.split("|")] for written, cells in rows}


def test_the_page_of_experts_names_those_that_there_are() -> None:
    for written, names in table_of_the_page().items():
        assert names[2] == (registry.default_maker(written) or names[2]), written
        for name in names:
            if name not in ("–", "the corpus"):
                assert written in registry.spec(name).writes, (written, name)


def test_the_page_of_experts_has_every_modality_of_the_papers() -> None:
    papers = {modality(name).token_of or modality(name).folder for name in FOURM_21}
    assert set(table_of_the_page()) == papers


def test_every_expert_is_on_the_page() -> None:
    prose = re.sub(r"^```.*?^```", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([^`]+)`", prose))
    for name in registry.names():
        assert name in named or named & set(registry.spec(name).writes), name


def test_what_is_fetched_for_everybody_comes_from_packages_alone() -> None:
    packaged = {name for name in registry.names() if registry.spec(name).comes_with_packages}
    assert {"edges", "imagenet", "depth"} <= packaged
    assert not packaged & {"sam2", "dpt", "clip", "vitdet"}
