"""Experts are found by the names of their files, or through an entry point."""

from importlib.metadata import EntryPoint

import pytest

from fourmill.labelers import registry
from fourmill.labelers.experts.edges import CannyEdges
from fourmill.manifests.errors import ConfigError, UnknownNameError


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
