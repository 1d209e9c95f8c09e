"""Weights of a model hub: found where a user put them, fetched once, named by what is in them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.labelers.hub_server import COMMIT, Hub, serving

from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.hub import HubWeights, file_sha256

ID = "org/net"
FILES = {
    "README.md": b"about it",
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "model.fp16.safetensors": b"halves",
    "pytorch_model.bin": b"weights, in a pickle",
    "modeling_net.py": b"raise SystemExit('this is a program')",
    "unet/config.json": b"{}",
    "unet/model.bin": b"more weights",
    "onnx/model.bin": b"weights for another program",
}
WANTED = {"config.json", "model.safetensors"}


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's files, as on a machine without a network."""
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(tmp_path / "weights"))
    folder = tmp_path / "weights" / ID
    put(folder, FILES)
    return folder


def run(hub: Hub, home: Path, what: str, weights: str = f"HubWeights('{ID}')") -> str:
    """An expression of `weights` in a new process, whose hub is ours."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "FOURMILL_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "FOURMILL_CACHE": str(home)}
    environment["HF_HUB_DISABLE_XET"] = "1"
    code = (
        "from fourmill.manifests.hub import HubWeights\n"
        "from fourmill.manifests.errors import FourmillError\n"
        f"weights = {weights}\n"
        f"try: print({what})\n"
        "except FourmillError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_given_folder_is_used_as_it_is(given: Path) -> None:
    weights = HubWeights(ID)
    assert weights.folder() == weights.local_folder() == given
    assert weights.size_bytes() == len(b"{}") + 7000


def test_the_digest_is_of_what_is_read_and_of_nothing_else(given: Path) -> None:
    before, deep = HubWeights(ID).sha256(), HubWeights(ID, folders=("unet",)).sha256()
    assert before != deep
    (given / "README.md").write_text("about it, in other words")
    (given / "pytorch_model.bin").unlink()
    assert HubWeights(ID).sha256() == before
    (given / "config.json").write_text('{"mean": 0.5}')
    assert HubWeights(ID).sha256() != before
    (given / "unet" / "model.bin").write_bytes(b"other weights")
    assert HubWeights(ID, folders=("unet",)).sha256() != deep


def test_a_changed_file_gets_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    first = file_sha256(file)
    assert file_sha256(file) == first
    file.write_bytes(b"three")
    assert file_sha256(file) != first


def test_a_given_folder_that_lacks_files_is_told(given: Path) -> None:
    for name in ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
        (given / name).unlink()
    with pytest.raises(MissingPackageError, match=rf"lacks \*\.safetensors: copy all of {ID}"):
        HubWeights(ID).folder()
    (given / "config.json").unlink()
    with pytest.raises(MissingPackageError, match="lacks everything"):
        HubWeights(ID).folder()


def test_a_part_of_a_large_model_that_is_not_there_is_told(given: Path) -> None:
    (given / "model.safetensors").rename(given / "model-1-of-2.safetensors")
    index = '{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
    (given / "model.safetensors.index.json").write_text(index)
    with pytest.raises(MissingPackageError, match=r"lacks model-2-of-2\.safetensors"):
        HubWeights(ID).folder()
    (given / "model-2-of-2.safetensors").write_bytes(b"")
    assert HubWeights(ID).folder() == given


def test_files_of_another_model_are_refused(given: Path) -> None:
    from transformers import AutoImageProcessor

    with pytest.raises(MissingPackageError, match="does not hold what AutoImageProcessor reads"):
        HubWeights(ID).build(AutoImageProcessor)


def test_it_is_fetched_once_and_then_needs_no_network(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(ID, FILES) as hub:
        asked = run(hub, home, "weights.sha256()")
        assert set(hub.fetched) == {"config.json"}  # what it weighs is known without the weights
        folder = Path(run(hub, home, "weights.folder()"))
        assert folder.name == COMMIT
        assert {each.name for each in folder.iterdir()} == WANTED  # and no program
        assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert set(hub.fetched) == WANTED
    assert run(hub, home, "weights.folder()") == str(folder)  # the server is gone
    assert run(hub, home, "weights.sha256()") == asked
    pinned = f"HubWeights('{ID}', '{COMMIT}')"
    assert run(hub, home, "weights.folder()", pinned) == str(folder)


def test_the_same_files_have_one_digest_wherever_they_lie(given: Path, tmp_path: Path) -> None:
    with serving(ID, FILES) as hub:
        deep = f"HubWeights('{ID}', folders=('unet',))"
        assert run(hub, tmp_path / "a", "weights.sha256()") == HubWeights(ID).sha256()
        run(hub, tmp_path / "b", "weights.folder()", deep)
        found = run(hub, tmp_path / "b", "weights.sha256()", deep)
        assert found == HubWeights(ID, folders=("unet",)).sha256()


def test_without_the_hub_it_says_what_to_run(tmp_path: Path) -> None:
    pinned = f"HubWeights('{ID}', '{COMMIT}')"
    for what in ("weights.folder()", "weights.sha256()"):
        said = run(Hub("http://127.0.0.1:9"), tmp_path, what, pinned)
        assert f"the weights {ID} are not on this machine" in said
        assert f"run `hf download {ID} --revision {COMMIT}`" in said
        assert f"$FOURMILL_WEIGHTS/{ID}" in said


def test_what_the_hub_does_not_have_is_told(tmp_path: Path) -> None:
    with serving("org/other", FILES) as hub:
        assert "hf download org/net" in run(hub, tmp_path, "weights.folder()")
