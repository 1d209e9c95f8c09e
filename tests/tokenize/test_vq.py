"""VQ tokenizers learn, keep what they learned, and give each sample its own tokens."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.filters import gaussian
from torch.nn import functional as F

from fourmill.manifests.errors import ConfigError, SampleError, UnknownNameError
from fourmill.manifests.labels import check_label, decode_label, encode_label
from fourmill.manifests.modalities import Kind, Modality, modality, register
from fourmill.tokenize import registry
from fourmill.tokenize.crops import crop_settings
from fourmill.tokenize.evaluate import evaluate
from fourmill.tokenize.initialise import _components
from fourmill.tokenize.quantize import CosineQuantizer
from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer

SMALL = VQTrainConfig(dim=64, steps=10, num_crops=8, batch_size=4)
CODES = 64
register(
    Modality(
        "celsius-of-tests", Kind.PLANE, "celsius", "png", channels=1, value_range=(-40.0, 150.0)
    )
)


def labels_of(name, photographs):
    """Labels made from real photographs, with the structure that each kind has."""
    grey = {key: photo.mean(-1) for key, photo in photographs.items()}
    smooth = {key: gaussian(each, 8) for key, each in grey.items()}
    if name == "rgb":
        return list(photographs.values())
    if name == "canny_edge":
        return [
            np.clip(4 * np.hypot(*np.gradient(each)), 0, 255).astype(np.uint8)
            for each in grey.values()
        ]
    if name == "depth":
        return [(each / 255).astype(np.float32) for each in smooth.values()]
    if name == "celsius-of-tests":
        return [(each / 5).astype(np.float32) for each in smooth.values()]
    if name == "normal":
        return [normals_of(each) for each in smooth.values()]
    if name == "semseg_coarse":
        return [np.where(each > 200, 255, each // 40).astype(np.uint8) for each in smooth.values()]
    maps = [F.avg_pool2d(torch.from_numpy(each)[None].float(), 24)[0] for each in grey.values()]
    mix = torch.linspace(-3, 3, 384)[:, None, None]
    return [torch.sin(mix * each / 60).half().numpy() for each in maps]


def normals_of(grey):
    down, across = np.gradient(grey / 3)
    vectors = np.stack([-across, down, np.ones_like(grey)], -1)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.rint(127.5 * (unit + 1)).astype(np.uint8)


def train(name, photographs, folder, config=SMALL, patch=8):
    labels = labels_of(name, photographs)
    sizes = [photo.shape[:2] for photo in photographs.values()]
    train_tokenizer(
        modality(name), 64, patch, CODES, config, labels, sizes, list(photographs), folder
    )
    crops = [
        crop_settings(key, size[0], size[1], 3)
        for key, size in zip(photographs, sizes, strict=True)
    ]
    return registry.load(folder), (labels, crops, sizes, list(photographs))


@pytest.fixture(scope="module")
def rgb(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers") / "tok_rgb@64"
    torch.set_num_threads(1)
    tokenizer, batch = train("rgb", photographs, folder)
    return tokenizer, batch, folder


# Derived, not tuned: the error of the best constant, which a tokenizer has to beat by far.
def constant_error(tokenizer, batch):
    labels, crops, sizes, _ = batch
    inputs = torch.cat(
        [tokenizer.prepare(*each) for each in zip(labels, crops, sizes, strict=True)]
    )
    if not inputs.is_floating_point():
        known = inputs[inputs > 0]
        return {"accuracy": float(torch.bincount(known).max() / len(known))}
    mean = inputs.mean((0, 2, 3), keepdim=True).expand_as(inputs)
    squares = (mean - inputs).square().mean((1, 2, 3)) / 4
    degrees = F.cosine_similarity(mean, inputs, dim=1).clamp(-1, 1).acos().rad2deg()
    return {
        "psnr": float(-10 * squares.log10().mean()),
        "abs_error": float((mean - inputs).abs().mean()),
        "mean_degrees": float(degrees.mean()),
        "cosine": float(F.cosine_similarity(mean, inputs, dim=1).mean()),
    }


@pytest.mark.parametrize(
    ("name", "metric", "gain"),
    [
        ("rgb", "psnr", lambda found, constant: found > constant + 6),  # a quarter of the squares
        ("canny_edge", "psnr", lambda found, constant: found > constant + 3),
        ("depth", "abs_error", lambda found, constant: found < constant / 2),
        # what is 51 degrees apart at the most is known to a few, wherever it lies in the range
        ("celsius-of-tests", "abs_error", lambda found, constant: found < 95 * constant / 3),
        ("normal", "mean_degrees", lambda found, constant: found < constant * 0.75),
        ("semseg_coarse", "accuracy", lambda found, constant: 1 - found < (1 - constant) / 2),
        ("vit_s_focus", "cosine", lambda found, constant: 1 - found < (1 - constant) / 4),
    ],
)
def test_a_tokenizer_learns_each_kind_of_label_in_seconds(
    name, metric, gain, photographs, tmp_path
):
    tokenizer, batch = train(name, photographs, tmp_path / "tokenizer")
    found = evaluate(tokenizer, *batch)
    assert gain(found[metric], constant_error(tokenizer, batch)[metric]), found
    assert found["codes_used"] > 0.5
    assert 1 <= found["perplexity"] <= CODES
    tokens = tokenizer.tokenize(*batch)
    assert tokens.shape == (6, 3, 64)
    check_label(tokenizer.token_modality, tokens[0])
    for label in tokenizer.detokenize(tokens[:, 0]):
        check_label(tokenizer.definition, label)
        decode_label(tokenizer.definition, encode_label(tokenizer.definition, label))


def test_training_twice_gives_the_same_bytes_and_tokens(rgb, photographs, tmp_path):
    tokenizer, batch, folder = rgb
    state = torch.random.get_rng_state()
    again, _ = train("rgb", photographs, tmp_path / "again")
    assert torch.equal(state, torch.random.get_rng_state())  # the caller's draws are its own
    for name in ("spec.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert registry.weights_sha256(tmp_path / "again") == registry.weights_sha256(folder)
    np.testing.assert_array_equal(again.tokenize(*batch), tokenizer.tokenize(*batch))


def test_a_loaded_tokenizer_saves_the_same_bytes(rgb, tmp_path):
    tokenizer, _, folder = rgb
    tokenizer.save(tmp_path)
    assert registry.weights_sha256(tmp_path) == registry.weights_sha256(folder)
    assert tokenizer.spec == registry.spec(folder)
    assert tokenizer.spec.modality == tokenizer.token_modality.name == "tok_rgb@64"


def test_tokens_of_a_sample_do_not_depend_on_the_batch(rgb):
    tokenizer, batch, _ = rgb
    together = tokenizer.tokenize(*batch)
    backwards = tokenizer.tokenize(*(each[::-1] for each in batch))
    np.testing.assert_array_equal(backwards[::-1], together)
    for index in range(6):
        alone = tokenizer.tokenize(*(each[index : index + 1] for each in batch))
        np.testing.assert_array_equal(alone[0], together[index])
    labels, crops, sizes, keys = batch
    first = tokenizer.tokenize(labels, [each[:1] for each in crops], sizes, keys)
    np.testing.assert_array_equal(first, together[:, :1])


def test_the_encoder_and_code_book_can_be_trained_too(photographs, tmp_path):
    config = SMALL.model_copy(update={"train_encoder": True, "encoder_depth": 1, "lr": 3e-4})
    start = SMALL.model_copy(update={"encoder_depth": 1, "steps": 0})
    trained, batch = train("rgb", photographs, tmp_path / "trained", config)
    started, _ = train("rgb", photographs, tmp_path / "started", start)
    assert not torch.equal(trained.network.quantize.codes, started.network.quantize.codes)
    block = trained.network.encoder.blocks[0].attn.proj.weight
    assert float(block.abs().max()) > 0
    constant = constant_error(trained, batch)["psnr"]
    assert evaluate(trained, *batch)["psnr"] > constant + 6


def test_codes_follow_their_vectors_and_unused_ones_are_replaced():
    generator = torch.Generator().manual_seed(0)
    quantizer = CosineQuantizer(4, 2)
    quantizer._codebook.embed.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
    latents = F.normalize(torch.tensor([[1.0, 0.5], [0.5, 1]]), dim=-1)
    latents = latents.repeat(50, 1).T.reshape(1, 2, 10, 10)
    replaced = 0
    for _ in range(300):
        tokens = quantizer.tokenize(latents)
        replaced += quantizer.update(latents, tokens, generator, decay=0.9)
    assert replaced >= 2
    found = quantizer.lookup(quantizer.tokenize(latents))
    torch.testing.assert_close(found, latents, atol=1e-3, rtol=0)


def test_flat_depth_is_no_number_out_of_range(photographs, tmp_path):
    tokenizer, _ = train("depth", photographs, tmp_path / "depth")
    flat = np.full((40, 40), 0.25, np.float32)
    tokens = tokenizer.tokenize([flat], [np.array([[0, 0, 40, 40, 0]])], [(40, 40)], ["flat"])
    (decoded,) = tokenizer.detokenize(tokens[:, 0])
    check_label(modality("depth"), decoded)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"expected \[H, W, 3\]"),
        (np.zeros((8, 8, 3), np.float32), "expected uint8"),
        ("a photograph", "expected an array"),
    ],
)
def test_a_bad_label_is_the_failure_of_its_sample(label, message, rgb):
    with pytest.raises(SampleError, match=message):
        rgb[0].tokenize([label], [np.array([[0, 0, 8, 8, 0]])], [(8, 8)], ["bad"])


def test_ids_outside_of_the_code_book_are_refused(rgb):
    with pytest.raises(ConfigError, match="expected 0 to 63"):
        rgb[0].detokenize(np.full((1, 64), 64))


def test_what_cannot_be_trained_is_refused(photographs, tmp_path):
    with pytest.raises(ConfigError, match="VQ tokenizers are for"):
        train_tokenizer(
            modality("caption"), 64, 8, CODES, SMALL, ["a"], [(8, 8)], ["a"], tmp_path / "a"
        )
    with pytest.raises(ConfigError, match="not a multiple of patch"):
        train("rgb", photographs, tmp_path / "b", patch=9)
    with pytest.raises(ConfigError, match="no labels"):
        train_tokenizer(modality("rgb"), 64, 8, CODES, SMALL, [], [], [], tmp_path / "c")


def test_a_folder_without_a_tokenizer_says_so(rgb, tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer here"):
        registry.load(tmp_path)
    _, _, folder = rgb
    (tmp_path / "spec.json").write_bytes((folder / "spec.json").read_bytes())
    with pytest.raises(ConfigError, match="not a VQ tokenizer"):
        registry.load(tmp_path)
    (tmp_path / "spec.json").write_text('{"kind": "vq"}')
    with pytest.raises(ConfigError, match="not the description"):
        registry.load(tmp_path)


def test_text_tokenizers_get_a_folder_each(vocabulary, tmp_path):
    names = ("caption", "det", "color_palette", "metadata")
    folders = registry.save_text_tokenizers(tmp_path, vocabulary, names, 0.4, {"caption": 32})
    assert folders == {name: tmp_path / f"tok_{name}" for name in names}
    loaded = {name: registry.load(folder) for name, folder in folders.items()}
    assert [each.spec.max_tokens for each in loaded.values()] == [32, 256, 23, 40]
    assert [each.spec.per_crop for each in loaded.values()] == [False, True, False, False]
    assert loaded["det"].spec.config == {"min_score": 0.4}
    for name, each in loaded.items():
        definition = each.token_modality
        assert (definition.name, definition.token_of) == (f"tok_{name}", name)
        assert definition.masking is modality(name).masking
        assert definition.vocab_size == len(vocabulary)
    with pytest.raises(UnknownNameError, match="did you mean 'caption'"):
        registry.save_text_tokenizers(tmp_path, vocabulary, ["captions"])


def test_specs_and_digests_need_no_networks(rgb):
    program = (
        "import sys; from pathlib import Path; from fourmill.tokenize import registry\n"
        "registry.spec(Path(sys.argv[1])); registry.weights_sha256(Path(sys.argv[1]))\n"
        "assert 'torch' not in sys.modules and 'tokenizers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, rgb[2]], check=True)


KILLED = """
import sys, time
from pathlib import Path
import skimage.data
from fourmill.manifests.modalities import modality
from fourmill.tokenize.train_vq import VQTrainConfig, train_tokenizer

def wait(step, steps, loss):
    print(step, flush=True)
    time.sleep(60)

photo = skimage.data.chelsea()
train_tokenizer(modality("rgb"), 64, 8, 64, VQTrainConfig(steps=2), [photo], [photo.shape[:2]],
                ["a"], Path(sys.argv[1]), wait)
"""


def test_a_killed_training_leaves_no_folder_and_is_done_again_to_the_same_bytes(
    photographs, tmp_path
):
    folder, undisturbed = tmp_path / "tok_rgb@64", tmp_path / "undisturbed"
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.kill()
    assert not folder.exists()
    (tmp_path / ".tok_rgb@64.unfinished").mkdir()  # what a kill in the middle of writing leaves
    (tmp_path / ".tok_rgb@64.unfinished" / "spec.json").write_text("{")
    for each in (folder, undisturbed):
        train("rgb", photographs, each)
    assert registry.weights_sha256(folder) == registry.weights_sha256(undisturbed)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["tok_rgb@64", "undisturbed"]
    record = json.loads((folder / "training.json").read_text())
    assert len(record["losses"]) == SMALL.steps
    assert record["metrics"]["psnr"] > 0


def test_components_of_wide_patches_keep_what_exact_ones_would():
    generator = torch.Generator().manual_seed(0)
    scales = 1 / torch.arange(1, 2305)  # as large as in pictures, where few carry most
    patches = scales * torch.randn(600, 2304, generator=generator)
    patches -= patches.mean(0)
    found, variances = _components(patches, 31, generator)
    exact = torch.linalg.svdvals(patches)[:31].square() / 600
    torch.testing.assert_close(found @ found.T, torch.eye(31), atol=1e-4, rtol=0)
    kept = (patches @ found.T).square().sum() / 600
    assert kept > 0.99 * exact.sum()
    torch.testing.assert_close(variances, exact, rtol=0.03, atol=0)


@pytest.mark.parametrize("reach", [0, 1])
def test_labels_that_are_all_alike_come_back_as_they_were(reach, tmp_path):
    label = np.full((64, 64), 3, np.uint8)
    config = VQTrainConfig(steps=3, reach=reach)
    train_tokenizer(
        modality("semseg_coarse"), 64, 16, CODES, config, [label] * 4, [(64, 64)] * 4,
        list("abcd"), tmp_path / "classes",
    )  # fmt: skip
    tokenizer = registry.load(tmp_path / "classes")
    tokens = tokenizer.tokenize([label], [np.array([[0, 0, 64, 64, 0]])], [(64, 64)], ["a"])
    assert np.array_equal(tokenizer.detokenize(tokens[:, 0])[0], label)
    black = np.zeros((64, 64, 3), np.uint8)
    train_tokenizer(
        modality("rgb"), 64, 16, CODES, config, [black] * 4, [(64, 64)] * 4, list("abcd"),
        tmp_path / "rgb",
    )  # fmt: skip
    tokenizer = registry.load(tmp_path / "rgb")
    tokens = tokenizer.tokenize([black], [np.array([[0, 0, 64, 64, 0]])], [(64, 64)], ["a"])
    assert tokenizer.detokenize(tokens[:, 0])[0].max() < 9
