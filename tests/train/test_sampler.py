"""A model with its tokenizers takes what people have, and gives what people look at."""

import numpy as np
import pytest
import torch
from tests.train.world import CAPTIONS, World

from fourmill.manifests.errors import ConfigError, SampleError, UnknownNameError
from fourmill.tokenize.crops import crop_settings
from fourmill.train.predict import held_out
from fourmill.train.published import load_published
from fourmill.train.sampler import Sampler, TokenizerFolder
from fourmill.train.schedules import default_step


@pytest.fixture(scope="module")
def sampler(world: World) -> Sampler:
    return Sampler.load(world.run, device="cpu", dtype="float32")


def test_a_photograph_becomes_the_very_pixels_and_tokens_that_the_loader_reads(sampler, world):
    held = held_out(world.run, sampler.domains, 2)
    images = [world.images[key] for key in held.keys]
    depths = [world.depths[key] for key in held.keys]
    # the stored depth is rounded to 16 bits, which the tokens of a photograph's own are not
    found = sampler.conditions(2, {"rgb": images, "tok_rgb@32": images, "depth": depths})
    assert torch.equal(found.pixels["rgb@32"], held.batch.pixels["rgb@32"])
    for name in ("tok_rgb@32", "tok_depth@32"):
        assert torch.equal(found.tokens[name], held.batch.tokens[name].long())


def test_a_sentence_becomes_the_tokens_of_the_caption_and_comes_back(sampler):
    found = sampler.conditions(2, {"caption": CAPTIONS[:2]})
    assert sampler.decode("tok_caption", found.tokens["tok_caption"]) == list(CAPTIONS[:2])


def test_depth_is_generated_from_a_photograph_and_decoded_to_a_map(sampler, world):
    conditions = sampler.conditions(1, {"rgb": [world.images["coffee"]]})
    name = sampler.resolve("depth", target=True)
    tokens = sampler.generate(conditions, [default_step(sampler.domains.modality(name))])
    (depth,) = sampler.decode(name, tokens[name])
    assert isinstance(depth, np.ndarray)
    assert (depth.shape, depth.dtype) == ((32, 32), np.float32)
    assert sampler.stored(name).name == "depth"


def test_the_file_of_a_run_is_as_good_as_its_folder(sampler, world):
    again = Sampler.load(world.file, device="cpu")
    weights = load_published(world.run).state_dict()
    assert all(torch.equal(each, weights[name]) for name, each in again.model.state_dict().items())
    assert set(again.tokenizers) == {"tok_caption", "tok_depth@32", "tok_rgb@32"}


def test_what_one_sample_lacks_is_unknown_and_harms_no_other(sampler, world):
    depth = world.depths["coffee"]
    found = sampler.conditions(3, {"depth": [None, depth, None]}).tokens["tok_depth@32"]
    alone = sampler.conditions(1, {"depth": [depth]}).tokens["tok_depth@32"]
    assert (found[[0, 2]] == -1).all()
    assert torch.equal(found[1], alone[0])


def test_a_part_of_a_picture_is_given_as_tokens_with_gaps(sampler):
    grid = np.full(16, -1)
    grid[3] = 7
    found = sampler.conditions(1, {"tok_depth@32": [grid]}).tokens["tok_depth@32"]
    assert found[0].tolist() == grid.tolist()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dept": [None]}, UnknownNameError, "depth"),
        ({"caption": ["  "]}, ConfigError, "empty text"),
        ({"rgb": [None]}, ConfigError, "no picture"),
        ({"rgb": ["a cat"]}, SampleError, "expected a picture"),
        ({"rgb": [np.zeros((4, 4), np.uint8)]}, SampleError, r"shape \[4, 4\]"),
        ({"depth": [None], "tok_depth@32": [None]}, ConfigError, "twice"),
        ({"depth": [None, None]}, ConfigError, "2 labels for 1 samples"),
        ({"tok_depth@32": [np.arange(9)]}, SampleError, "9 tokens, expected 16"),
        ({"tok_depth@32": [np.full(16, 32)]}, SampleError, "expected -1 to 31"),
    ],
)
def test_what_cannot_be_given_is_refused_with_what_was_expected(sampler, given, error, message):
    with pytest.raises(error, match=message):
        sampler.conditions(1, given)


def test_a_model_without_tokenizers_says_what_it_needs(world, tmp_path):
    tmp_path.joinpath("none").mkdir()
    bare = Sampler.load(world.run, tmp_path / "none", device="cpu")
    with pytest.raises(ConfigError, match=r"no tokenizer for tok_caption.*--tokenizers"):
        bare.conditions(1, {"caption": ["a cat"]})
    with pytest.raises(ConfigError, match="no such folder of tokenizers"):
        Sampler.load(world.run, tmp_path / "nowhere")


def test_a_tokenizer_of_another_vocabulary_than_the_models_is_refused(sampler, world, tmp_path):
    (tmp_path / "tok_depth@32").symlink_to(world.tokenizers / "tok_caption")
    found = TokenizerFolder(tmp_path, sampler.domains, torch.device("cpu"))
    with pytest.raises(ConfigError, match="the model's tok_depth@32 is 16 of 32"):
        found["tok_depth@32"]


def test_the_centre_square_of_a_label_of_another_size_is_that_of_the_picture(sampler, world):
    image, depth = world.images["coffee"], world.depths["coffee"]
    half = np.ascontiguousarray(depth[::2, ::2])
    with_picture = sampler.conditions(1, {"rgb": [image], "depth": [half]})
    top, left, height, width, _ = crop_settings("", *image.shape[:2], 1)[0] // 2
    square = np.ascontiguousarray(half[top : top + height, left : left + width])
    alone = sampler.conditions(1, {"depth": [square]})
    same = with_picture.tokens["tok_depth@32"] == alone.tokens["tok_depth@32"]
    assert same.float().mean() > 0.8  # but for resampling at the edges
