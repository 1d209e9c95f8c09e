"""Labels that are wrong, in a table: each fails alone, and says where, what was found, and what was
expected; all modalities keep all samples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Kind, Modality, modality, register
from fourmill.pipeline.config import CorpusConfig, ImageTokenizerConfig, TokenizeConfig
from fourmill.pipeline.ingest import ingest
from fourmill.pipeline.run import plan_corpus
from fourmill.pipeline.tokenizers import missing_images

pytestmark = pytest.mark.ray

SIDES = (40, 60)
THERMAL = register(
    Modality(
        "thermal_of_tests", Kind.PLANE, "thermal_of_tests", "png", channels=1,
        value_range=(-40.0, 150.0), unit="°C",
    )
)  # fmt: skip
NAMES = (
    "thermal_of_tests", "depth", "normal", "semseg_coarse", "vit_s_focus", "DINOv2-B14-global",
    "ocr",
)  # fmt: skip


def plane(value: float, *shape: int) -> np.ndarray:
    return np.full(shape or SIDES, value, np.float32)


def of(name: str, value: object) -> tuple[str, bytes]:
    """A file beside a picture, by its ending."""
    if isinstance(value, bytes):
        return f"{name}.npy", value
    if not isinstance(value, np.ndarray):
        return f"{name}.json", json.dumps(value).encode()
    return f"{name}.npy", _npy(value)


def _npy(array: np.ndarray) -> bytes:
    from fourmill.manifests.npy import encode_npy

    return encode_npy(array)


def box(*corners: float) -> dict[str, Any]:
    return {"instances": [{"boxes": list(corners), "class_name": "EXIT", "score": 1}]}


GOOD = {
    "good": of("thermal_of_tests", plane(20.5)),
    "small": of("thermal_of_tests", plane(-40, 8, 12).astype(np.float64)),
    "deep": of("depth", plane(0.5).astype(np.float16)),
    "unknown": of("semseg_coarse", np.full(SIDES, 255, np.uint8)),
    "mapped": of("vit_s_focus", np.ones((384, 3, 4), np.float32)),
    "read": of("ocr", box(0, 0, 0.5, 1)),
}
BAD = {
    "turned": (
        of("thermal_of_tests", plane(20, 60, 40)),
        "turned.thermal_of_tests.npy: found 60 x 40 places, expected the proportions of the "
        "picture, 40 x 60: a label covers all of it",
    ),
    "hot": (of("thermal_of_tests", plane(400)), "found 400 to 400 °C, expected -40 to 150 °C"),
    "layered": (of("thermal_of_tests", plane(20, 40, 60, 3)), "expected [H, W]"),
    "named": (of("thermal_of_tests", np.full(SIDES, "warm")), "found <U4, expected float32"),
    "cut": (of("thermal_of_tests", _npy(plane(20))[:200]), "cut.thermal_of_tests.npy: not read"),
    "holes": (of("depth", np.where(np.eye(*SIDES), np.nan, plane(0.5))), "40 of 2400 values are "
              "not finite"),
    "behind": (of("depth", plane(-0.1)), "found depth -0.1, expected none below 0"),
    "metres": (of("depth", plane(7.5)), "found depth 7.5 to 7.5, its encoding holds 0 to 1"),
    "long": (of("normal", np.full((*SIDES, 3), 255, np.uint8)), "found a vector of length 1.73"),
    "beyond": (of("semseg_coarse", np.full(SIDES, 21, np.uint8)), "found class 21, expected 0 to"),
    "shares": (of("semseg_coarse", plane(3)), "found float32, expected uint8"),
    "narrow": (of("vit_s_focus", np.ones((383, 3, 4), np.float16)), "found shape [383, 3, 4], "
               "expected [384, h, w]"),
    "huge": (of("vit_s_focus", np.full((384, 3, 4), 1e6)), "values are not finite"),
    "wide": (of("DINOv2-B14-global", np.ones(769, np.float32)), "found shape [769], expected [768"),
    "outside": (of("ocr", box(0, 0, 1.5, 1)), "expected [x0, y0, x1, y1] from 0 to 1"),
    "listed": (of("ocr", [1, 2]), 'expected {"instances": [...]}'),
}  # fmt: skip
"""By picture: the file beside it, and what is said of it."""


@pytest.fixture(scope="module")
def dataset(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures with a label each, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("bad")
    photo = Image.fromarray(skimage.data.coffee()).resize(SIDES[::-1])
    for key, (ending, content) in (GOOD | {key: file for key, (file, _) in BAD.items()}).items():
        photo.save(folder / f"{key}.jpg")
        (folder / f"{key}.{ending}").write_bytes(content)
    config = CorpusConfig(sources=(str(folder),), labels=NAMES, samples_per_shard=12, held_out=0)
    root = str(tmp_path_factory.mktemp("root"))
    opened = Dataset.open(root, create=True)
    ingest(opened, plan_corpus(config, root), on_progress=lambda done, failed: None)
    return opened


def _of(dataset: Dataset, key: str, name: str) -> Any:
    return next(s[name] for s in dataset.samples([name, "source"])
                if s["source"]["file"] == f"{key}.jpg")  # fmt: skip


def test_all_samples_keep_their_place_in_all_modalities(dataset):
    assert dataset.verify(deep=True) == []
    assert {*NAMES, "rgb"} <= dataset.modalities.keys()
    assert {each.samples for each in dataset.modalities.values()} == {len(GOOD) + len(BAD)}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_label_fails_alone_with_file_finding_and_expectation(key, dataset):
    (ending, _), expected = BAD[key]
    name = ending.rpartition(".")[0]
    (failure,) = [
        each for each in dataset.failures(name)
        if each.key.startswith(f"{key}-") and each.stage != "ingest"
    ]  # fmt: skip
    assert expected in failure.message
    assert failure.stage == name
    assert key == "metres" or failure.message.startswith(f"{key}.{name}.")
    assert _of(dataset, key, name) is None
    assert _of(dataset, key, "rgb") is not None


@pytest.mark.parametrize("key", GOOD)
def test_a_good_label_beside_bad_ones_is_stored(key, dataset):
    ending, content = GOOD[key]
    label = _of(dataset, key, ending.rpartition(".")[0])
    if ending.endswith(".json"):
        assert label == json.loads(content)
        return
    from fourmill.manifests.npy import decode_npy

    np.testing.assert_allclose(label, decode_npy(content), atol=190 / 65535)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (("thermal_of_test",), UnknownNameError, "did you mean 'thermal_of_tests'"),
        (("tok_rgb@224",), ConfigError, "tok_rgb@224 cannot lie beside pictures"),
        (("caption",), ConfigError, "caption cannot lie beside pictures"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_before_anything_is(
    labels, error, message, tmp_path
):
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "a.jpg")
    with pytest.raises(error, match=message):
        plan_corpus(CorpusConfig(sources=(str(tmp_path),), labels=labels), str(tmp_path / "root"))


def test_labels_that_no_source_reads_are_refused(tmp_path):
    (tmp_path / "urls.tsv").write_text("https://example.org/a.jpg\ta cat\n")
    config = CorpusConfig(sources=(str(tmp_path / "urls.tsv"),), labels=("depth",))
    with pytest.raises(ConfigError, match=r"corpus.labels: nothing reads depth: labels lie beside"):
        plan_corpus(config, str(tmp_path / "root"))


def _tokenizer(folder: Path, definition: Modality) -> None:
    from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer

    labels = [plane(each / 8, 32, 32) for each in range(8)]
    config = VQTrainConfig(dim=16, heads=2, latent=4, steps=0, decoder_depth=0)
    sizes = [(32, 32)] * 8
    train_tokenizer(definition, 32, 8, 4, config, labels, sizes, list("abcdefgh"), folder)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: modality("depth"), "found a tokenizer of depth, expected one of thermal_of_tests"),
        (
            lambda: Modality(
                THERMAL.name, Kind.PLANE, THERMAL.name, "png", channels=1, value_range=(0.0, 1.0)
            ),
            r"had the value_range \(0.0, 1.0\) when it was trained, and has \(-40.0, 150.0\) now",
        ),
    ],
)
def test_a_tokenizer_of_something_else_is_refused_by_its_folder(
    made: Callable[[], Modality], message: str, tmp_path: Path
):
    folder = tmp_path / "tok_thermal_of_tests@32"
    _tokenizer(folder, made())
    config = ImageTokenizerConfig(modality=THERMAL.name, size=32, patch=8, vocab_size=4)
    with pytest.raises(ConfigError, match=message) as caught:
        missing_images(TokenizeConfig(images=(config,)), tmp_path)
    assert str(caught.value).startswith(f"{folder}: ")
