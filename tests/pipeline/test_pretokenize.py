"""Token shards: any reader reads them; made once, anew beside the old, whatever is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import modality
from fourmill.pipeline.cli import main
from fourmill.pipeline.engine import Engine
from fourmill.pipeline.plan import plan_wave
from fourmill.pipeline.steps import CropStep
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.vq import VQTokenizer

pytestmark = pytest.mark.ray

TOKENS = "tok_rgb@64"
# slow enough to be killed in the middle
SLOW_TOKENIZE = """
import sys, time
from ray import cloudpickle
from fourmill.pipeline.commands import build
from fourmill.pipeline.steps import TokenizeStep
from fourmill.pipeline.cli import main

class Slow(TokenizeStep):
    def run(self, batch):
        time.sleep(1)
        return super().run(batch)

cloudpickle.register_pickle_by_value(sys.modules[__name__])
build.TokenizeStep = Slow
sys.exit(main(["tokenize", *sys.argv[1:]]))
"""


@pytest.fixture
def tokenizers(tmp_path: Path) -> Path:
    """A folder with a tokenizer that was never trained."""
    folder = tmp_path / "tokenizers"
    _save(folder, seed=0)
    return folder


@pytest.fixture
def make_cropped(make_root):
    """A function that makes a dataset with crop settings."""

    def make(name: str, num_crops: int = 3) -> Dataset:
        dataset = make_root(name, 3)
        _crop(dataset, num_crops)
        return Dataset.open(dataset.url)

    return make


def _save(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = AutoencoderConfig(
        channels=3, size=64, patch=16, dim=32, encoder_depth=1, decoder_depth=1, heads=2, codes=64
    )
    VQTokenizer(modality("rgb"), 64, 16, VQAutoencoder(config)).save(folder / TOKENS)


def _crop(dataset: Dataset, num_crops: int) -> None:
    plan = plan_wave(dataset, [CropStep(num_crops, 0, 0.3)])
    Engine(plan).run()
    writers = [each for step in plan.steps.values() for each in step.writers.values()]
    dataset.publish([each.finish() for each in writers], "crops")


def _tokenize(dataset: Dataset, tokenizers: Path) -> Dataset:
    assert main(["tokenize", dataset.url, str(tokenizers)]) == 0
    return Dataset.open(dataset.url)


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_webdataset_reads_the_same_tokens_and_a_second_run_makes_none(
    make_cropped, tokenizers, capsys
):
    dataset = _tokenize(make_cropped("root"), tokenizers)
    shards = dataset.shards(TOKENS)
    urls = f"{dataset.url}/{TOKENS}/shard-{{000000..{len(shards) - 1:06d}}}.tar"
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    ours = [row for each in shards for row in each.array()]
    assert [each["__key__"] for each in read] == [key for each in shards for key in each.keys]
    assert all(np.array_equal(one["npy"], two) for one, two in zip(read, ours, strict=True))
    assert all(one["npy"].dtype == two.dtype for one, two in zip(read, ours, strict=True))
    capsys.readouterr()
    assert main(["tokenize", dataset.url, str(tokenizers), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["snapshot"] == dataset.head.id


def test_a_folder_without_tokenizers_is_refused(make_cropped, tmp_path, capsys):
    assert main(["tokenize", make_cropped("root").url, str(tmp_path)]) != 0
    assert f"{tmp_path}: no tokenizers in it" in capsys.readouterr().err


def test_more_crops_or_another_tokenizer_make_a_version_beside_the_old(make_cropped, tokenizers):
    dataset = _tokenize(make_cropped("root"), tokenizers)
    first = dataset.head
    old = np.concatenate([each.array() for each in dataset.shards(TOKENS)])
    _crop(dataset, 5)
    dataset = _tokenize(Dataset.open(dataset.url), tokenizers)
    more = np.concatenate([each.array() for each in dataset.shards(TOKENS)])
    assert more.shape[1] == 5
    assert np.array_equal(more[:, :3], old), "more crops leave the first ones as they are"
    _save(tokenizers, seed=1)
    dataset = _tokenize(dataset, tokenizers / TOKENS)  # one may be named alone
    other = np.concatenate([each.array() for each in dataset.shards(TOKENS)])
    assert not np.array_equal(other, more)
    kept = [dataset.shard(TOKENS, index, first).array() for index in range(first.num_shards)]
    assert np.array_equal(np.concatenate(kept), old)


@pytest.mark.slow
def test_tokenizing_that_is_killed_goes_on_and_gives_the_same_bytes(
    make_cropped, tokenizers, tmp_path
):
    undisturbed = make_cropped("undisturbed")
    killed = Dataset.open(str(shutil.copytree(undisturbed.url, tmp_path / "killed")))
    undisturbed = _tokenize(undisturbed, tokenizers)
    command = [sys.executable, "-c", SLOW_TOKENIZE, killed.url, str(tokenizers)]
    records = Path(killed.url) / TOKENS / "_records"
    with subprocess.Popen(command, start_new_session=True) as process:
        while not (records.is_dir() and len(list(records.iterdir())) > 1):
            assert process.poll() is None, "it was to be killed while it works"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert TOKENS not in Dataset.open(killed.url).modalities
    finished = {path.name for path in records.parent.glob("*.tar")}
    assert 0 < len(finished) < undisturbed.head.num_shards
    killed = _tokenize(killed, tokenizers)
    for one, two in zip(undisturbed.shards(TOKENS), killed.shards(TOKENS), strict=True):
        paths = [Path(each.url) for each in (one, two)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    digests = {each.modalities[TOKENS].content_sha256 for each in (undisturbed, killed)}
    assert len(digests) == 1
